#!/usr/bin/env bash
# sanitizer_test.sh XOS [MACHINE OPTION...]: tests that programs built with sanitizers run in a cell as natively, and that
# the sanitizers find the errors that they are for: here, or in the emulated machine that the script MACHINE runs.
set -euo pipefail
xos=$(realpath "$1")
shift
machine=("$@")
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
#include <sched.h>
#include <stdlib.h>
static int shared __attribute__((aligned(64)));
static volatile int big;
static int turn __attribute__((aligned(64)));
/* ThreadSanitizer can miss accesses of the same moment, and those of a thread that has ended. A relaxed flag puts one
   after the other, and orders nothing. It lies apart: of eight bytes only the last four accesses are kept. */
static void wait_for_turn(int mine) {
    while (__atomic_load_n(&turn, __ATOMIC_RELAXED) != mine) sched_yield();
}
static void* write_it(void* n) {
    shared++;
    __atomic_store_n(&turn, 1, __ATOMIC_RELAXED);
    wait_for_turn(2);
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
        case 'u': big = n << 30; big = big * 4; return 0;
        case 't': {
            pthread_t thread;
            pthread_create(&thread, 0, write_it, 0);
            wait_for_turn(1);
            shared++;
            __atomic_store_n(&turn, 2, __ATOMIC_RELAXED);
            pthread_join(thread, 0);
        }
    }
    return 0;
}
C

# What runs the programs, in a machine with little more than a shell. $1 = xos, the rest are the programs' names.
cat >"$work/run.sh" <<'SH'
xos=$1; shift
failures=0
fail() { echo "FAIL $*"; failures=1; }
errors() { grep -c 'Sanitizer\|runtime error' "$1"; }
cd "${0%/*}"
for name in "$@"; do
    wanted=0
    ./$name-wrong >/dev/null 2>natively || wanted=$?
    [ "$(errors natively)" -gt 0 ] || fail "$name finds nothing natively"
    for how in auto own; do
        said=$(timeout 100 "$xos" run --fallback=fail --loader=$how -- ./$name-fine 2>&1)
        [ "$said" = 9 ] || fail "$name, --loader=$how: $said"
        status=0
        timeout 100 "$xos" run --fallback=fail --loader=$how -- ./$name-wrong >/dev/null 2>inside || status=$?
        [ $status = $wanted ] && [ "$(errors natively)" = "$(errors inside)" ] ||
            fail "$name, --loader=$how: status $status, natively $wanted: $(head -c 400 inside)"
    done
done
exit $failures
SH

# compiler_has COMPILER SANITIZER
compiler_has() {
    command -v "$1" >/dev/null && echo 'int main(void) { return 0; }' >"$work/probe.c" &&
        "$1" "-fsanitize=$2" -o "$work/probe" "$work/probe.c" 2>/dev/null
}
names=() programs=()
for compiler in gcc clang; do
    for sanitizer in address thread undefined leak memory; do
        compiler_has $compiler $sanitizer || continue
        name=$compiler-$sanitizer
        flags=(-g -O1 "-fsanitize=$sanitizer" -pthread)
        "$compiler" "${flags[@]}" -o "$work/$name-fine" "$work/fine.c"
        "$compiler" "${flags[@]}" "-DKIND='${sanitizer:0:1}'" -w -o "$work/$name-wrong" "$work/wrong.c"
        names+=("$name") programs+=("$work/$name-fine" "$work/$name-wrong")
    done
done
((${#names[@]} >= 4)) || { echo "FAIL only ${#names[@]} sanitizers were there to be tried"; exit 1; }

if ((${#machine[@]} == 0)); then
    sh "$work/run.sh" "$xos" "${names[@]}"
    exit
fi
build=$(dirname "$(dirname "$xos")")
pack=(--program "$xos" --program /usr/bin/timeout --file "$work/run.sh=$work/run.sh")
for file in "$build/lib/libxos-preload.so" "$build/lib/xos/xos-loader"; do pack+=(--file "$file=$file"); done
for program in "${programs[@]}"; do pack+=(--program "$program"); done
"${machine[@]}" "${pack[@]}" -- sh "$work/run.sh" "$xos" "${names[@]}"
