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

options_in() { grep -oE '^ +(-[a-z],)?--[a-z]+' <<<"$1" | grep -oE -- '--[a-z]+' | sort; }
own=$(options_in "$("$benchmarks" --help)")
shown=$(options_in "$("$xos" bench --help)")
[[ $(comm -23 <(echo "$own") <(echo "$shown")) == '' && $(comm -13 <(echo "$own") <(echo "$shown")) == --module ]] ||
    { echo "FAIL xos bench --help shows" $shown, "xos-bench has" $own; failures=$((failures + 1)); }
for option in $shown; do
    grep -Fq -- "${option/--/\\-\\-}" "$(dirname "$0")/../../docs/xos.1" ||
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
only trap "$xos" bench --list --suite=trap
only '(trap|vm)' "$xos" bench --list trap --suite=vm
only vm "$xos" bench --list --filter vm/
only trap "$xos" bench --engine=qemu-svm --list trap
expect all 0 '^syscall/' "$xos" bench --list
expect everything 0 '^app/' "$xos" bench --list

expect option 2 'no option --siute=trap; did you mean --suite\?' "$xos" bench --siute=trap
expect option-emulated 2 'no option --filer; did you mean --filter\?' "$xos" bench --engine=qemu-svm --filer trap
expect option-far 2 'no option --something-else$' "$xos" bench --something-else
expect option-of-xos-bench 2 'no option --siute; did you mean --suite\?' "$benchmarks" --siute trap
for engine in native qemu-svm bochs-vmx; do
    expect "suite, $engine" 2 'no suite trop \(did you mean trap\?\); there are .*syscall, trap, vm' \
        "$xos" bench --engine=$engine trop
done
expect suite-far 2 'no suite nonsense; there are' "$xos" bench --suite=nonsense
expect nothing-chosen 2 'no benchmark of that suite or name' "$xos" bench trap --filter=vm/
expect mode 2 'mode' "$xos" bench --mode=ring7
expect engine 2 'engine' "$xos" bench --engine=bochs
expect module-natively 2 'module: only an emulated machine' "$xos" bench --module=xos.ko
echo '{"app/redis-get": {"exit": 2}}' >"$work/limits.json"
expect limits-of-nothing 2 'app/redis-get has exit, which has no limit' \
    "$benchmarks" --unit=instructions --limits="$work/limits.json" app
expect counted 0 '^app/redis-get ' "$xos" bench --engine=qemu-svm --list app
# Rows of servers are there only where the servers are.
expect not-timed 0 '^app/start ' "$xos" bench --list app
! grep -q redis-get "$work/out" || { echo 'FAIL not-timed: redis-get'; failures=$((failures + 1)); }
expect programs 0 '^sqlite3 sqlite3 ' "$xos" bench --engine=qemu-svm --programs app
expect missing-program 1 'redis-server is missing; install the package redis-server' \
    env PATH=/nonexistent "$xos" bench --engine=qemu-svm --filter=redis-get app
expect limits-natively 2 'limits needs --unit=instructions' "$xos" bench --limits=/dev/null
exit $((failures != 0))
