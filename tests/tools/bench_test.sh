#!/usr/bin/env bash
# bench_test.sh XOS: tests which options `xos bench` understands, and what it says to others. It measures nothing.
set -euo pipefail
xos=$1
benchmarks=$(dirname "$xos")/xos-bench
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect NAME STATUS PATTERN COMMAND...: PATTERN (extended) is in its output.
expect() {
    local name=$1 wanted=$2 pattern=$3 status=0
    shift 3
    timeout 60 "$@" >"$work/out" 2>&1 </dev/null || status=$?
    if [[ $status == "$wanted" ]] && grep -Eq -- "$pattern" "$work/out"; then
        echo "ok   $name"
    else
        echo "FAIL $name: status $status, not $wanted, or '$pattern' is missing: $(head -c 500 "$work/out")"
        failures=$((failures + 1))
    fi
}

options_in() { grep -oE '^ +(-[a-z],)?--[a-z-]+' <<<"$1" | grep -oE -- '--[a-z-]+' | sort; }
own=$(options_in "$("$benchmarks" --help)")
shown=$(options_in "$("$xos" bench --help)")
[[ $(comm -23 <(echo "$own") <(echo "$shown")) == --machine-lines ]] ||
    { echo "FAIL xos bench --help shows" $shown, "xos-bench has" $own; failures=$((failures + 1)); }
for option in $shown; do
    grep -Fq -- "${option//-/\\-}" "$(dirname "$0")/../../docs/xos.1" ||
        { echo "FAIL docs/xos.1 lacks $option"; failures=$((failures + 1)); }
done

# only SUITE COMMAND...: the list has nothing else.
only() {
    local suite=$1
    shift
    expect "$*" 0 "^$suite/" "$@"
    ! grep -Ev "^$suite/" "$work/out" || { echo "FAIL $*: more than the suite $suite"; failures=$((failures + 1)); }
}
only trap "$xos" bench trap --list
only '(trap|vm)' "$xos" bench --list trap vm
only vm "$xos" bench --list --filter vm/
only trap "$xos" bench --engine=qemu-svm --list trap
expect all 0 '^syscall/' "$xos" bench --list
expect everything 0 '^app/' "$xos" bench --list

expect option 2 'no option --limit=x; did you mean --limits\?' "$xos" bench --limit=x
expect option-emulated 2 'no option --filer; did you mean --filter\?' "$xos" bench --engine=qemu-svm --filer trap
expect option-far 2 'no option --something-else$' "$xos" bench --something-else
expect option-of-xos-bench 2 'no option --filer; did you mean --filter\?' "$benchmarks" --filer trap
for engine in native qemu-svm bochs-vmx; do
    expect "suite, $engine" 2 'no suite trop \(did you mean trap\?\); there are .*syscall, trap, vm' \
        "$xos" bench --engine=$engine trop
done
expect suite-far 2 'no suite nonsense; there are' "$xos" bench nonsense
expect nothing-chosen 2 'no benchmark of that suite or name' "$xos" bench trap --filter=vm/
expect mode 2 'mode' "$xos" bench --mode=ring7
expect engine 2 'no engine qemu-smv \(did you mean qemu-svm\?\); there are all, native' "$xos" bench --engine=qemu-smv
expect engine-short 2 'no engine bochs \(did you mean bochs-vmx\?\)' "$xos" bench --engine=bochs
expect module-natively 2 'module: only an emulated machine' "$xos" bench --module=xos.ko
echo '{"app/redis-get": {"exit": 2}}' >"$work/limits.json"
expect limits-of-nothing 1 'app/redis-get has exit, which has no limit' \
    "$xos" bench --engine=qemu-svm --limits="$work/limits.json" app
echo '{"app/redis-gte": 2}' >"$work/limits.json"
expect limits-of-no-row 1 'limits.json names app/redis-gte, which is no benchmark' \
    "$xos" bench --engine=qemu-svm --limits="$work/limits.json" trap
expect no-emulator 1 'qemu-system-x86_64 is missing; install the package qemu-system-x86' \
    env PATH=/nonexistent "$xos" bench --engine=qemu-svm trap
expect counted 0 '^app/redis-get ' "$xos" bench --engine=qemu-svm --list app
# Rows of servers are there only where the servers are.
expect not-timed 0 '^app/start ' "$xos" bench --list app
! grep -q redis-get "$work/out" || { echo 'FAIL not-timed: redis-get'; failures=$((failures + 1)); }
expect programs 0 '^sqlite3 sqlite3 ' "$xos" bench --engine=qemu-svm --programs app
expect missing-program 1 'redis-server is missing; install the package redis-server' \
    env PATH=/nonexistent "$xos" bench --engine=qemu-svm --filter=redis-get app
expect limits-natively 2 'limits: needs an emulated engine' "$xos" bench --limits=/dev/null
expect reason-alone 2 'accept-limits: needs the file' "$xos" bench --engine=qemu-svm --accept-limits=because
for option in json html markdown; do
    expect "$option, no folder" 1 "cannot write $work/none/file: No such file" "$xos" bench trap --$option="$work/none/file"
    expect "$option, full disk" 1 'cannot write /dev/full: No space left' "$xos" bench trap --$option=/dev/full
done
for option in from compare; do
    expect "$option, no file" 1 "cannot read $work/none" "$xos" bench trap --$option="$work/none"
    expect "$option, of another kind" 1 'limits.json holds no results of xos bench' \
        "$xos" bench trap --$option="$work/limits.json"
done
exit $((failures != 0))
