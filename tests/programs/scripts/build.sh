# make -j2 builds a C library and a program; the objects are compared byte by byte, by their checksums.
set -e
cd "$1"
# Tables, switches, floating point, recursion and inline functions, differently in every file.
for i in $(seq 8); do
    awk -v n="$i" 'BEGIN {
        print "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <math.h>\n#include \"all.h\""
        printf "static const unsigned table%d[] = {", n
        for (k = 0; k < 400; k++) printf "%d%s", (k * 2654435 + n * 97) % 65521, k < 399 ? "," : "};\n"
        for (k = 0; k < 40; k++) {
            printf "static int f%d_%d(int x) { switch (x %% %d) {", n, k, k + 3
            for (c = 0; c < k + 3; c++) printf " case %d: return x * %d + (int)table%d[%d];", c, c + n, n, (k * 7 + c) % 400
            print " } return x; }"
        }
        printf "static double g%d(double x) { return x < 1 ? sqrt(x + %d) : g%d(x / 2) + sin(x); }\n", n, n, n
        printf "long part%d(long x) {\n    char text[64];\n", n
        for (k = 0; k < 40; k++) printf "    x += f%d_%d((int)(x & 0xffff));\n", n, k
        printf "    snprintf(text, sizeof text, \"%%.6f\", g%d((double)(x & 1023)));\n    return x + (long)strlen(text) + text[3];\n}\n", n
    }' >"part$i.c"
done
{ echo '#pragma once'; for i in $(seq 8); do echo "long part$i(long x);"; done; } >all.h
{
    echo '#include <stdio.h>'; echo '#include "all.h"'
    echo 'int main(void) { long x = 1;'
    for i in $(seq 8); do echo "    x = part$i(x);"; done
    echo '    printf("%ld\n", x); return 0; }'
} >main.c
cat >Makefile <<'M'
CFLAGS = -O2 -Wall -g0
parts := $(patsubst %.c,%.o,$(sort $(wildcard part*.c)))
program: main.o libparts.a ; $(CC) -o $@ $^ -lm
libparts.a: $(parts) ; ar rcD $@ $^
%.o: %.c all.h ; @echo compiling $< >>log; $(CC) $(CFLAGS) -c -o $@ $<
test: program ; ./program
M
make -j2 --no-print-directory test >output
tail -1 output
sort log
sha256sum ./*.o libparts.a program
touch -d '1 hour ago' ./*.o
make -j2 --no-print-directory program >/dev/null
wc -l <log
printf 'int f(void) { return undeclared; }\n' >part9.c
make --no-print-directory 2>&1 | sed 's/make\[[0-9]*\]/make/'
echo "${PIPESTATUS[0]}"
