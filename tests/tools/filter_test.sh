#!/usr/bin/env bash
# filter_test.sh XOS: tests that a program runs as natively under a seccomp filter that refuses the call by which libxos
# reads arguments.
set -euo pipefail
xos=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

cat >"$work/filter.c" <<'C'
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int n, char** words) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_writev, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    struct sock_fprog filter = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (n < 2 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) return 99;
    execvp(words[1], words + 1);
    return 98;
}
C
cat >"$work/threads.c" <<'C'
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
static void* one(void* n) { return (char*)n + 1; }
static void nothing(int s) { (void)s; }
int main(int n, char** words) {
    if (n > 1) return words[1][0] != 'x';
    pthread_t t;
    void* end = 0;
    if (pthread_create(&t, 0, one, 0) || pthread_join(t, &end) || end != (void*)1) return 1;
    struct sigaction a = {.sa_handler = nothing}, old;
    if (sigaction(SIGUSR1, &a, 0) || sigaction(SIGUSR1, 0, &old) || old.sa_handler != nothing) return 2;
    char* page = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    munmap(page + 4096, 4096);
    if (syscall(SYS_rt_sigaction, SIGUSR1, page + 4096 - 8, 0, 8) != -1 || errno != EFAULT) return 3;
    if (syscall(SYS_rt_sigaction, SIGUSR1, 0, page + 4096 - 8, 8) != -1 || errno != EFAULT) return 4;
    mprotect(page, 4096, PROT_READ);
    if (syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, 0, page) != -1 || errno != EFAULT) return 5;
    if (fork() == 0) execl("/proc/self/exe", "threads", "x", (char*)0);
    int status;
    wait(&status);
    return status ? 6 : 0;
}
C
gcc -o "$work/filter" "$work/filter.c"
gcc -pthread -o "$work/threads" "$work/threads.c"
# expect NAME COMMAND...
expect() {
    local name=$1 status=0
    shift
    timeout 60 "$@" >"$work/said" 2>&1 </dev/null || status=$?
    [[ $status == 0 ]] || { echo "FAIL $name: status $status: $(head -c 300 "$work/said")"; failures=$((failures + 1)); }
}
expect natively "$work/filter" "$work/threads"
for how in preload own; do
    expect "in a cell, $how" "$work/filter" "$xos" run --loader=$how -- "$work/threads"
done
exit $((failures != 0))
