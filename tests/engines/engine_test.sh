#!/bin/bash
# engine_test.sh ENGINE: tests that an engine does what tests/engines/README.md promises of every engine.
set -euo pipefail
here=$(dirname "$(realpath "$0")")
engine=$here/$1.sh
failures=0

TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

expect() { # what wanted seen
    if [[ $2 == "$3" ]]; then return; fi
    echo "FAILED: $1: expected '$2', got '$3'"
    failures=$((failures + 1))
}

# Sets `status` and `output`.
run() {
    status=0
    output=$("$engine" "$@" 2>"$TMPDIR/errors") || status=$?
}

# 60 kB at the end, which are on their way when the machine powers off.
# shellcheck disable=SC2016  # the machine's shell shall see the dollar
script='[ -c /dev/kvm ] && seq 1 11000; printf "%s\t" "$@"; exit 7'
run -- sh -c "$script" name "it's" 'two words' '*' ''
expect "status of the command" 7 "$status"
expect "output, byte for byte" "$(seq 1 11000; printf '%s\t' "it's" 'two words' '*' '')" "$output"

run -- sh -c 'echo "BUG: of a test" >/dev/kmsg; echo done'
expect "status after a bug in the kernel" "124 done" "$status $output"
expect "the kernel's words" 1 "$(grep -c 'BUG: of a test' "$TMPDIR/errors")"

run --timeout 2 -- true
expect "status of a machine that took too long" 125 "$status"
run --timeout 5 --cpu no-such-model -- true
expect "status of a machine that cannot be" 125 "$status"
run --no-such-option 1 -- true
expect "status of a wrong option" 2 "$status"

rm "$TMPDIR/errors"
expect "files left behind" "" "$(ls "$TMPDIR")"
expect "processes left behind" "" "$(pgrep -f -a "$TMPDIR/" || true)"
(( failures == 0 )) && echo "$1: ok"
