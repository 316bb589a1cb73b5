#!/bin/bash
# Runs swizzle and reads its table.
#
#     swizzle_test.sh PROGRAM               on this machine; also tests what it answers to bad options
#     swizzle_test.sh PROGRAM ENGINE MODE   on an emulated machine (tests/engines), with a static PROGRAM
set -u -o pipefail

. "$(dirname "$0")/either_machine.sh"

run() {
    output=$("${command[@]}" "$@" 2>&1) || fail "$*: status $?"
    # faults, reads, evictions, writes, exits, verdict
    while read -r way _ rest; do rows[$way]=$rest; done < <(tr -s ' ' <<<"$output")
}
declare -A rows

arguments=(--pages=500 --frames=100 --lookups=3000)
run "${arguments[@]}"
# Both replace the oldest page, and fault on the same ones.
read -r _ reads_in_order evictions writes exits answers <<<"${rows[sigsegv]}"
[ "$exits $answers" = "- right" ] || fail "the row of sigsegv is wrong"
[ "$evictions" -gt 1000 ] || fail "the pool is not under pressure"
[ "$writes" -gt 100 ] || fail "hardly any page that had changed was evicted"
if [ "${rows[userfaultfd]}" != "${rows[sigsegv]}" ]; then
    grep -q '^userfaultfd not available: userfaultfd' <<<"$output" ||
        fail "the row of userfaultfd is neither a result nor a reason"
fi

# Only transfers leave the guest, and perhaps the first touch of a chunk of memory.
leaves_guest() { [ $((exits - $1)) -ge 0 ] && [ $((exits - $1)) -le 3 ]; }
read -r _ reads _ writes exits answers <<<"${rows[view]}"
[ "$answers" = right ] || fail "the row of view is wrong"
leaves_guest $((reads + writes)) || fail "a view must leave the guest for transfers alone"
# It knows which pages are in use, so that it should not fault more often.
[ "$reads" -le "$reads_in_order" ] || fail "accessed bits make it worse"

if [ $# -eq 1 ]; then
    run "${arguments[@]}" --way=view --transfer=copies
    read -r _ reads_again _ writes_again exits answers <<<"${rows[view]}"
    [ "$reads_again $writes_again $answers" = "$reads $writes right" ] ||
        fail "the row of view with copies is wrong"
    leaves_guest 0 || fail "a view that copies must not leave the guest"

    run --pages=300 --frames=2 --lookups=500
    for way in sigsegv view; do
        [[ ${rows[$way]} == *right ]] || fail "two frames: the row of $way is wrong"
    done
    run --pages=1 --frames=10 --lookups=500 --updates=0
    [ "${rows[sigsegv]}" = "1 1 0 0 - right" ] || fail "one page: the row of sigsegv is wrong"
    [[ ${rows[view]} == "1 1 0 0 "[1-4]" right" ]] || fail "one page: the row of view is wrong"

    refuses() {
        local name=$1
        shift
        output=$("$program" "$@" 2>&1) && fail "$* is accepted"
        grep -q -- "$name" <<<"$output" || fail "the message for $* does not name $name"
    }
    refuses --pages --pages=0
    refuses --frames --frames=1
    refuses --lookups --lookups=0
    refuses --updates --updates=101
    refuses --transfer --transfer=guess
    refuses --way --way=guess
    refuses --mode --mode=ring7
    refuses nonsense --nonsense
fi
echo "PASS: swizzle${3:+ $3}"
