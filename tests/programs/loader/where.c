// Says whether it runs in a cell: GS is libxos's there, and zero in a process of Linux's.
#include <stdio.h>

int main(void) {
    unsigned long base;
    __asm__("rdgsbase %0" : "=r"(base));
    puts(base ? "cell" : "linux");
    return 0;
}
