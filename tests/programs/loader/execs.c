// execs WAY PROGRAM [ARGUMENT]...: executes a program in one of the ways that there are.
// execs repeat-fork|repeat-spawn PROGRAM TIMES [ARGUMENT]...: and says what that has left behind.
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

extern char** environ;
static char** arguments;

static void* in_thread(void* unused) {
    (void)unused;
    execv(arguments[0], arguments);
    return NULL;
}

static int by_descriptor(const char* path, int flags, int at_flags) {
    const int fd = open(path, flags);
    syscall(SYS_execveat, fd, "", arguments, environ, AT_EMPTY_PATH | at_flags);
    return errno;
}

static int from_directory(char* path, int flags) {
    char* slash = strrchr(path, '/');
    *slash = '\0';
    const int fd = open(path, O_PATH | O_DIRECTORY | flags);
    *slash = '/';
    syscall(SYS_execveat, fd, slash + 1, arguments, environ, 0);
    return errno;
}

static int wait_for(pid_t child) {
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child) return 250;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 200 + WTERMSIG(status);
}

static int report(const char* what, int result) {
    printf("%s: %d %s\n", what, result, result < 0 ? strerror(errno) : "");
    return 0;
}

/// A string and a list that end at the end of the memory there is. Shared memory: Linux alone has it.
static void* at_the_edge(const void* data, size_t n) {
    char* pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    munmap(pages + 4096, 4096);
    return memcpy(pages + 4096 - n, data, n);
}

static int bad_memory(void) {
    char* words[] = {arguments[0], NULL};
    char** const endless = at_the_edge(words, sizeof(char*));
    char* const unended = at_the_edge("A=bcdefghijklmno", 16);
    char* variables[] = {"ONE=1", unended, NULL};
    char* volatile nowhere = (char*)8;
    report("path", execve(nowhere, words, environ));
    report("argv", execve(arguments[0], endless, environ));
    report("argv[0]", execve(arguments[0], (char*[]){(char*)8, NULL}, environ));
    report("envp", execve(arguments[0], words, endless));
    report("envp[1]", execve(arguments[0], words, variables));
    report("long path", execve(memset(calloc(1, 5000), 'x', 4999), words, environ));
    return 0;
}

static int too_much(void) {
    char* big = malloc(200000);
    memset(big, 'x', 199999);
    big[199999] = '\0';
    report("long word", execve(arguments[0], (char*[]){big, NULL}, environ));
    char** many = calloc(100, sizeof(char*));
    big[120000] = '\0';
    for (int i = 0; i < 99; i++) many[i] = big;
    report("many words", execve(arguments[0], (char*[]){"x", NULL}, many));
    return 0;
}

static int busy(void) {
    const int fd = open(arguments[0], O_WRONLY);
    if (fd < 0) return report("open", fd);
    return report("busy", execv(arguments[0], arguments));
}

/// What a debugger does: executes the program under its eyes, and stops it where it begins.
static long entry_of(pid_t child) {
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/auxv", child);
    FILE* f = fopen(name, "r");
    Elf64_auxv_t a;
    long entry = 0;
    while (!entry && f && fread(&a, sizeof a, 1, f) == 1)
        if (a.a_type == AT_ENTRY) entry = (long)a.a_un.a_val;
    if (f) fclose(f);
    return entry;
}
static int stop_of(pid_t child) {
    int status = 0;
    waitpid(child, &status, 0);
    printf("%s %d\n", WIFSTOPPED(status) ? "stopped" : WIFEXITED(status) ? "exited" : "killed",
           WIFSTOPPED(status) ? WSTOPSIG(status) : WIFEXITED(status) ? WEXITSTATUS(status) : WTERMSIG(status));
    return WIFSTOPPED(status);
}
static int debug(void) {
    const pid_t child = fork();
    if (child == 0) {
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execv(arguments[0], arguments);
        _exit(97);
    }
    if (!stop_of(child)) return 1;
    const long entry = entry_of(child), code = ptrace(PTRACE_PEEKTEXT, child, entry, NULL);
    ptrace(PTRACE_POKETEXT, child, entry, (code & ~0xffL) | 0xcc);
    ptrace(PTRACE_CONT, child, NULL, NULL);
    if (!stop_of(child)) return 1;
    struct user_regs_struct registers;
    ptrace(PTRACE_GETREGS, child, NULL, &registers);
    puts((long)registers.rip == entry + 1 ? "at its entry" : "somewhere else");
    ptrace(PTRACE_POKETEXT, child, entry, code);
    registers.rip = (unsigned long long)entry;
    ptrace(PTRACE_SETREGS, child, NULL, &registers);
    for (int i = 0; i < 10; i++) {
        ptrace(PTRACE_SINGLESTEP, child, NULL, NULL);
        if (!stop_of(child)) return 1;
    }
    ptrace(PTRACE_CONT, child, NULL, NULL);
    while (stop_of(child)) ptrace(PTRACE_CONT, child, NULL, NULL);
    return 0;
}

/// Many in a row: descriptors, memory and children before and after.
static long kilobytes(void) {
    long pages = 0, resident = 0;
    FILE* f = fopen("/proc/self/statm", "r");
    if (fscanf(f, "%ld %ld", &pages, &resident) != 2) resident = -1;
    fclose(f);
    return pages * 4;
}
static int descriptors(void) {
    int n = 0;
    for (int fd = 0; fd < 65536; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}
static int repeat(int times, int spawn) {
    long memory = 0;
    int open_before = 0;
    for (int i = 0; i < times + 20; i++) {
        if (i == 20) memory = kilobytes(), open_before = descriptors();
        pid_t child;
        if (spawn) {
            if (posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ)) return 1;
        } else if ((child = fork()) == 0) {
            execv(arguments[0], arguments);
            _exit(99);
        }
        const int status = wait_for(child);
        if (status != 0) return report("child", status);
    }
    const long grown = kilobytes() - memory;
    if (grown > 1024) printf("%ld KiB more after %d\n", grown, times);
    if (descriptors() != open_before) printf("%d descriptors, before %d\n", descriptors(), open_before);
    printf("children left: %d\n", waitpid(-1, NULL, WNOHANG));
    return 0;
}

int main(int argc, char** argv) {
    if (argc < 3) return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    const char* way = argv[1];
    char* path = argv[2];
    arguments = argv + 2;
    int error = 0;
    if (!strcmp(way, "execv")) error = (execv(path, arguments), errno);
    if (!strcmp(way, "named")) error = (execv(path, arguments + 1), errno);
    if (!strcmp(way, "nameless")) error = (execve(path, NULL, environ), errno);
    if (!strcmp(way, "bare")) error = (execve(path, arguments, (char*[]){NULL}), errno);
    if (!strcmp(way, "no-environment")) error = (execve(path, arguments, NULL), errno);
    if (!strcmp(way, "fexecve")) error = by_descriptor(path, O_RDONLY, 0);
    if (!strcmp(way, "fexecve-closing")) error = by_descriptor(path, O_RDONLY | O_CLOEXEC, 0);
    if (!strcmp(way, "fexecve-path")) error = by_descriptor(path, O_PATH | O_CLOEXEC, 0);
    if (!strcmp(way, "directory")) error = from_directory(path, 0);
    if (!strcmp(way, "directory-closing")) error = from_directory(path, O_CLOEXEC);
    if (!strcmp(way, "nofollow"))
        error = (syscall(SYS_execveat, AT_FDCWD, path, arguments, environ, AT_SYMLINK_NOFOLLOW), errno);
    if (!strcmp(way, "thread")) {
        pthread_t t;
        pthread_create(&t, NULL, in_thread, NULL);
        pthread_join(t, NULL);
        error = errno;
    }
    if (!strcmp(way, "spawn")) {
        pid_t child;
        // Several, from memory that the children share: what they do to it must not be seen.
        for (int i = 0; i < 3; i++) {
            error = posix_spawn(&child, path, NULL, NULL, arguments, environ);
            if (error) break;
            printf("status %d\n", wait_for(child));
        }
        for (char** e = environ; *e; e++)
            if (!strncmp(*e, "XOS_", 4) || !strncmp(*e, "LD_", 3)) puts(*e);
        if (!error) return 0;
    }
    if (!strcmp(way, "vfork")) {
        const pid_t child = vfork();
        if (child == 0) {
            execv(path, arguments);
            _exit(98);
        }
        return printf("status %d\n", wait_for(child)) < 0;
    }
    if (!strcmp(way, "bad-memory")) return bad_memory();
    if (!strcmp(way, "too-much")) return too_much();
    if (!strcmp(way, "busy")) return busy();
    if (!strcmp(way, "debug")) return debug();
    if (!strcmp(way, "long") && argc > 3) {
        static char* words[20003];
        const int n = atoi(argv[3]);
        char* word = malloc(101);
        memset(word, 'y', 100);
        word[100] = '\0';
        for (int i = 0; i < n && i < 20000; i++) words[i] = word;
        words[0] = path;
        char** variables = calloc((size_t)n + 1, sizeof(char*));
        for (int i = 0; i < n; i++) variables[i] = word;
        error = (execve(path, words, variables), errno);
    }
    if (!strncmp(way, "repeat-", 7) && argc > 3) {
        const int times = atoi(argv[3]);
        argv[3] = path;
        arguments = argv + 3;
        return repeat(times, !strcmp(way, "repeat-spawn"));
    }
    printf("%s: %s\n", way, strerror(error));
    return 3;
}
