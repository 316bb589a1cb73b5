#!/usr/bin/env bash
# event_loop.sh XOS EVENT_LOOP ROUNDS RING [MACHINE [OPTION]...]: tests that the program EVENT_LOOP tells the same on Linux
# and in a cell with --event-loops=batched, and that turns answered some of its reads. It runs here, or in the emulated
# machine that the script MACHINE runs.
set -euo pipefail
xos=$(realpath "$1") program=$(realpath "$2") rounds=$3 ring=$4
shift 4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/run.sh" <<'SH'
xos=$1 program=$2 rounds=$3 ring=$4
cd "${0%/*}"
# An emulated machine has just started.
ip link set lo up 2>/dev/null || ifconfig lo 127.0.0.1 up
fail() { echo "FAIL $*"; cat natively inside; exit 1; }
timeout 300 $program $rounds >natively 2>&1 || fail "natively: status $?"
timeout 300 $xos run --fallback=fail --ring=$ring --event-loops=batched --stats=json:stats -- $program $rounds \
    >inside 2>&1 || fail "in the cell: status $?"
cmp natively inside || fail "they differ"
grep -q '"read":{[^}]*"local":' stats || fail "no turn has answered a read"
cat inside
SH
if (($# == 0)); then
    sh "$work/run.sh" "$xos" "$program" "$rounds" "$ring"
    exit
fi
build=$(dirname "$(dirname "$xos")")
pack=(--program "$xos" --program "$program" --program /usr/bin/timeout --program /usr/bin/cmp
      --file "$work/run.sh=$work/run.sh")
for file in "$build/lib/libxos-preload.so" "$build/lib/xos/xos-loader"; do pack+=(--file "$file=$file"); done
"$@" "${pack[@]}" -- sh "$work/run.sh" "$xos" "$program" "$rounds" "$ring"
