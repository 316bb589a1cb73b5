#!/usr/bin/env bash
# sanitizer_test.sh XOS: tests that programs built with sanitizers run in a cell as natively, and that the sanitizers find
# the errors that they are for.
set -euo pipefail
xos=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

cat >"$work/fine.c" <<'C'
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long sum;
static void* work(void* n) {
    char* mapped = mmap(0, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(mapped, 1, 65536);
    char* block = malloc(200 << 10);
    memset(block, 1, 200 << 10);
    pthread_mutex_lock(&lock);
    sum += mapped[65535] + block[4096] + (n != 0);
    pthread_mutex_unlock(&lock);
    munmap(mapped, 65536);
    free(block);
    return n;
}
int main(void) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(threads + i, 0, work, &sum);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], 0);
    printf("%ld\n", sum);
    return 0;
}
C
cat >"$work/wrong.c" <<'C'
#include <pthread.h>
#include <stdlib.h>
static int shared;
static volatile int big;
static void* write_it(void* n) {
    for (volatile int i = 0; i < 1000; i++) shared++;
    return n;
}
int main(int n, char** words) {
    int* volatile block = malloc(n * 4 * sizeof *block);
    (void)words;
    switch (KIND) {
        case 'a': return block[n * 4];
        case 'm': return block[1] ? 1 : 2;
        case 'l':
            for (int i = 0; i < 20; i++) block = malloc(100);
            break;
        case 'u': big = n << 30; return big * 4 > 0;
        case 't': {
            pthread_t thread;
            pthread_create(&thread, 0, write_it, 0);
            write_it(0);
            pthread_join(thread, 0);
        }
    }
    return 0;
}
C

fail() { echo "FAIL $*"; failures=$((failures + 1)); }
# compiler_has NAME COMPILER SANITIZER
compiler_has() {
    command -v "$1" >/dev/null && echo 'int main(void) { return 0; }' >"$work/probe.c" &&
        "$1" "-fsanitize=$2" -o "$work/probe" "$work/probe.c" 2>/dev/null
}
tried=0
for compiler in gcc clang; do
    for sanitizer in address thread undefined leak memory; do
        compiler_has $compiler $sanitizer || continue
        tried=$((tried + 1))
        letter=${sanitizer:0:1}
        "$compiler" -g -O1 "-fsanitize=$sanitizer" -pthread -o "$work/fine" "$work/fine.c"
        "$compiler" -g -O1 "-fsanitize=$sanitizer" "-DKIND='$letter'" -w -pthread -o "$work/wrong" "$work/wrong.c"
        wanted=0
        "$work/wrong" >/dev/null 2>"$work/natively" || wanted=$?
        for how in auto own; do
            said=$(timeout 100 "$xos" run --loader=$how -- "$work/fine" 2>&1) || true
            [[ $said == 9 ]] || fail "$compiler -fsanitize=$sanitizer, --loader=$how: $(head -c 400 <<<"$said")"
            status=0
            timeout 100 "$xos" run --loader=$how -- "$work/wrong" >/dev/null 2>"$work/inside" || status=$?
            [[ $status == "$wanted" ]] && [[ $(grep -c 'Sanitizer\|runtime error' "$work/natively") == \
                $(grep -c 'Sanitizer\|runtime error' "$work/inside") ]] ||
                fail "$compiler -fsanitize=$sanitizer, --loader=$how: status $status, natively $wanted: $(head -c 400 "$work/inside")"
        done
    done
done
((tried >= 4)) || fail "only $tried sanitizers were there to be tried"
exit $((failures != 0))
