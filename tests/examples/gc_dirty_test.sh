#!/bin/bash
# Runs gc_dirty and reads its table.
#
#     gc_dirty_test.sh PROGRAM               on this machine; also tests what it answers to bad options
#     gc_dirty_test.sh PROGRAM ENGINE MODE   on an emulated machine (tests/engines), with a static PROGRAM
set -u -o pipefail

. "$(dirname "$0")/either_machine.sh"

arguments=(--pages=2000 --epochs=5 --writes=500)
output=$("${command[@]}" "${arguments[@]}" 2>&1) || fail "status $?"

# way, pages found, exits, verdict of the replay
row() { awk -v way="$1" '$1 == way { print $2, $5, $6 }' <<<"$output"; }

read -r found exits replay <<<"$(row mprotect)"
[ "$exits $replay" = "- identical" ] || fail "the row of mprotect is wrong"
# 2500 writes to 2000 pages, 500 at a time: some hit a page twice in an epoch.
if [ "$found" -le 2000 ] || [ "$found" -gt 2500 ]; then fail "mprotect found $found pages"; fi
[ "$(row dirty)" = "$found 0 identical" ] ||
    fail "dirty bits must find the same $found pages without an exit"
# A kernel that has no soft-dirty bits is named as the reason. The emulated machine's has them.
if [ "$(row soft-dirty)" != "$found - identical" ]; then
    [ $# -eq 1 ] || fail "the row of soft-dirty is wrong"
    grep -qx 'soft-dirty  not available: this kernel is built without CONFIG_MEM_SOFT_DIRTY' \
        <<<"$output" || fail "the row of soft-dirty is neither a result nor a reason"
fi

if [ $# -eq 1 ]; then
    refuses() {
        local name=$1
        shift
        output=$("$program" "$@" 2>&1) && fail "$* is accepted"
        grep -q -- "$name" <<<"$output" || fail "the message for $* does not name $name"
    }
    refuses --pages --pages=0
    refuses --epochs --epochs=-1
    refuses --record --record=12
    refuses --hot --hot=101
    refuses --way --way=guess
    refuses --mode --mode=ring7
    refuses nonsense --nonsense

    output=$("$program" --way=dirty --pages=1 --epochs=1 --writes=0 --record=4096 2>&1) ||
        fail "one page: status $?"
    [ "$(row dirty)" = "0 0 identical" ] || fail "one page that nobody writes is found"
    output=$("$program" --way=dirty --pages=1000 --epochs=3 --hot=10 --writes=5000 2>&1) ||
        fail "hot pages: status $?"
    [ "$(row dirty)" = "300 0 identical" ] || fail "of 1000 pages the hot 100 change in each epoch"
fi
echo "PASS: gc_dirty${3:+ $3}"
