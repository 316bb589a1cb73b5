#!/usr/bin/env bash
# run_test.sh XOS: what `xos run` says and returns, for good and bad programs.
set -euo pipefail
xos=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect NAME STATUS PATTERN COMMAND...: PATTERN (extended) must be in standard error; `-` for no check.
expect() {
    local name=$1 wanted=$2 pattern=$3 status=0
    shift 3
    timeout 60 "$@" >"$work/out" 2>"$work/err" </dev/null || status=$?
    if [[ $status != "$wanted" ]]; then
        echo "FAIL $name: status $status, not $wanted: $(head -c 300 "$work/err")"
        failures=$((failures + 1))
    elif [[ $pattern != - ]] && ! grep -Eq -- "$pattern" "$work/err"; then
        echo "FAIL $name: standard error lacks '$pattern': $(head -c 300 "$work/err")"
        failures=$((failures + 1))
    else
        echo "ok   $name"
    fi
}

cat >"$work/static.c" <<'C'
int main(void) { return 0; }
C
gcc -static -o "$work/static" "$work/static.c"
printf 'not a program\n' >"$work/text"
head -c 100 /bin/true >"$work/truncated"
chmod +x "$work/truncated"
printf '#!/bin/sh\nexit 9\n' >"$work/script"
chmod +x "$work/script"

expect status 7 - "$xos" run -- sh -c 'exit 7'
expect killed 143 - "$xos" run -- sh -c 'kill -TERM $$'
expect not-found 127 'not found' "$xos" run -- no-such-program-anywhere
expect not-executable 126 'ermission denied' "$xos" run -- "$work/text"
expect truncated 126 'xec format' "$xos" run -- "$work/truncated"
expect static 0 - "$xos" run -- "$work/static"
expect static-own 0 - "$xos" run --loader=own -- "$work/static"
expect static-preload 126 'statically linked.*--loader=own' "$xos" run --loader=preload -- "$work/static"
expect script 9 - "$xos" run -- "$work/script"
expect bad-ring 2 'ring' "$xos" run --ring=7 -- true
expect no-program 2 - "$xos" run
expect options-of-program 0 - "$xos" run -- sh -c 'test "$1" = --stats' sh --stats
expect bad-mode 125 'XOS_MODE' env XOS_MODE=nonsense LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
expect stats 0 'system calls' "$xos" run --stats -- ls /
for wanted in 'entries +1' 'exits' 'getdents64 +[0-9]+ +(exit|module)' 'exit_group +1 +emulated' 'mode (pvm|ring0)'; do
    if ! grep -Eq "$wanted" "$work/err"; then
        echo "FAIL stats: lacks '$wanted'"
        failures=$((failures + 1))
    fi
done
if [[ $(grep -c 'mode pvm' "$work/err") == 1 ]]; then
    expect ring0-refused 125 'need hardware virtualization' "$xos" run --ring=0 -- true
    expect ring3-refused 125 'need hardware virtualization' "$xos" run --ring=3 -- true
fi
expect mem-bad 125 'XOS_MEM' "$xos" run --mem=5X -- true
expect pager-bad 2 'pager' "$xos" run --pager=none -- true
for memory in "" --mem=64M --pager=demand --pager=populate; do
    expect "memory inside $memory" 0 'mmap +[0-9]+ +local' \
        "$xos" run $memory --stats -- python3 -c 'assert sum(bytearray(30 << 20)) == 0'
done
expect memory-of-linux 0 'mmap +[0-9]+ +(exit|module)' "$xos" run --mem=0 --stats -- python3 -c 'bytearray(30 << 20)'
if grep -Eq 'mmap +[0-9]+ +local' "$work/err"; then
    echo "FAIL memory-of-linux: mmap was served inside"
    failures=$((failures + 1))
fi
expect bad-transport 2 'transport' "$xos" run --transport=pigeon -- true
expect bad-transport-variable 125 'XOS_TRANSPORT' env XOS_TRANSPORT=pigeon LD_PRELOAD="$(dirname "$xos")/../lib/libxos-preload.so" true
expect transport-exit 0 'transport exit' "$xos" run --transport=exit --stats -- true
if [[ ! -e /dev/xos ]]; then
    expect no-module 125 'module is not loaded' "$xos" run --transport=module -- true
fi
# Which malloc the program has.
mapped='grep -q libjemalloc /proc/self/maps'
expect malloc-jemalloc 0 - "$xos" run --malloc=jemalloc -- sh -c "$mapped"
expect malloc-by-environment 0 - env XOS_MALLOC=jemalloc "$xos" run -- sh -c "$mapped"
expect malloc-option-first 1 - env XOS_MALLOC=jemalloc "$xos" run --malloc=system -- sh -c "$mapped"
expect malloc-system 1 - "$xos" run -- sh -c "$mapped"
expect malloc-preload-kept 0 - env LD_PRELOAD=libm.so.6 "$xos" run --malloc=jemalloc -- sh -c "$mapped && grep -q libm.so /proc/self/maps"
expect malloc-unknown 2 'malloc' "$xos" run --malloc=other -- true
expect malloc-unknown-in-environment 2 'malloc: other' env XOS_MALLOC=other "$xos" run -- true
# /dev/null over the library, where only this command sees it.
hide='for f in /usr/local/lib /usr/lib/x86_64-linux-gnu /usr/lib64 /usr/lib; do
          [ ! -e $f/libjemalloc.so.2 ] || mount --bind /dev/null $f/libjemalloc.so.2 || exit 99; done; exec "$@"'
expect malloc-not-installed 125 'libjemalloc.so.2 is not installed: apt-get install libjemalloc2' \
    unshare --map-root-user --mount env -u LD_LIBRARY_PATH sh -c "$hide" sh "$xos" run --malloc=jemalloc -- true
# Its memory comes from the cell, not from Linux.
expect malloc-without-exits 0 'mmap +[0-9]+ +local' "$xos" run --malloc=jemalloc --stats -- \
    /usr/bin/python3 -c 'x = [bytes(100000) for i in range(1000)]'
# The program's output is its own: statistics go to standard error, also when it has closed that.
"$xos" run --stats -- sh -c 'echo one; exec 2>&-' >"$work/out" 2>"$work/err"
[[ $(cat "$work/out") == one ]] && grep -q 'system calls' "$work/err" || {
    echo "FAIL stats with standard error closed"
    failures=$((failures + 1))
}
exit $((failures != 0))
