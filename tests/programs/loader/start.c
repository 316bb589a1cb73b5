// What a program finds when it starts. Whatever differs from one run to the next is not printed, but checked.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

extern char **environ, end, __executable_start[];
static char zeros[3 << 20];
static __thread int local = 41;
static __thread char local_zeros[5000];
static int constructed;
static volatile double one = 1;

__attribute__((constructor)) static void construct(void) { constructed = 1; }

static void check(int ok, const char* what) {
    if (!ok) printf("wrong: %s\n", what);
}

static void print_file(const char* path) {
    static char text[1 << 16];
    const int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text);
    if (fd >= 0) close(fd);
    printf("%s:", path);
    for (ssize_t i = 0; i < n; i++) putchar(text[i] ? text[i] : '|');
    putchar('\n');
}

static void* work(void* number) {
    char* piece = malloc(100000);
    memset(piece, 1, 100000);
    local += (int)(intptr_t)number;
    free(piece);
    errno = local;
    return (void*)(intptr_t)(errno + local_zeros[4999]);
}

int main(int argc, char** argv, char** variables) {
    printf("argc %d\n", argc);
    for (int i = 0; i < argc; i++) printf("argv %.60s %zu\n", argv[i], strlen(argv[i]));
    check(argv[argc] == NULL, "argv has an end");
    check(variables == environ && variables == argv + argc + 1, "envp is behind argv");
    size_t n = 0, bytes = 0;
    for (; variables[n]; n++) bytes += strlen(variables[n]);
    printf("variables %zu bytes %zu\n", n, bytes);
    for (size_t i = 0; i < n && i < 40; i++) printf("env %.80s\n", variables[i]);

    static const unsigned long same[] = {AT_PHENT, AT_PHNUM, AT_PAGESZ, AT_FLAGS,  AT_UID,  AT_EUID,
                                         AT_GID,   AT_EGID,  AT_SECURE, AT_CLKTCK, AT_HWCAP, AT_HWCAP2};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) printf("auxv %lu: %lx\n", same[i], getauxval(same[i]));
    // Where runtimes without a C library look for it.
    const ElfW(auxv_t)* found = (const void*)(variables + n + 1);
    for (unsigned seen = 0; found->a_type != AT_NULL; found++) {
        const unsigned long type = found->a_type;
        if (type == AT_IGNORE || type == AT_HWCAP) continue;  // glibc has its own idea of the latter
        check(type < 64 && ++seen < 64 && found->a_un.a_val == getauxval(type), "the vector behind the environment");
        if (type >= 64) break;
    }
    check((found - 1)->a_type != AT_NULL && getauxval(AT_PAGESZ) == 4096, "the vector's end");
    printf("execfn %s\n", (char*)getauxval(AT_EXECFN));
    printf("platform %s\n", (char*)getauxval(AT_PLATFORM));
    printf("linker %s\n", getauxval(AT_BASE) ? "yes" : "no");
    const ElfW(Ehdr)* elf = (const void*)__executable_start;
    const uintptr_t bias = elf->e_type == ET_DYN ? (uintptr_t)elf : 0;
    check(!memcmp(elf->e_ident, ELFMAG, SELFMAG), "the program's header is mapped");
    check(getauxval(AT_ENTRY) == bias + elf->e_entry, "AT_ENTRY");
    check(getauxval(AT_PHDR) == (uintptr_t)elf + elf->e_phoff, "AT_PHDR");
    check(getauxval(AT_SYSINFO_EHDR) != 0, "AT_SYSINFO_EHDR");
    check(getauxval(AT_RANDOM) != 0, "AT_RANDOM");
    check(((uintptr_t)(argv - 1) & 15) == 0, "the stack is aligned");
    const uintptr_t heap = (uintptr_t)sbrk(0);
    printf("heap behind the program: %d\n", heap > (uintptr_t)&end && heap - (uintptr_t)&end < (2ul << 30));
    check((uintptr_t)syscall(SYS_brk, heap + (1 << 20)) == heap + (1 << 20) && (*(char*)heap = 1), "the heap grows");

    check(constructed, "constructors");
    for (size_t i = 0; i < sizeof zeros; i++) check(zeros[i] == 0, "bss");
    pthread_t threads[8];
    intptr_t sum = 0;
    for (int i = 0; i < 8; i++) pthread_create(&threads[i], NULL, work, (void*)(intptr_t)i);
    for (int i = 0; i < 8; i++) {
        void* result;
        pthread_join(threads[i], &result);
        sum += (intptr_t)result;
    }
    printf("threads %ld, local %d, double %g\n", (long)sum, local, one / 8);

    char text[4096];
    ssize_t length = readlink("/proc/self/exe", text, sizeof text);
    printf("exe %.*s\n", (int)length, text);
    check(readlink("/proc/self/exe", text, 5) == 5, "a short buffer");
    prctl(PR_GET_NAME, text);
    printf("comm %s\n", text);
    print_file("/proc/self/cmdline");
    fflush(stdout);
    return 7;
}
