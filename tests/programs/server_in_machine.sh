#!/usr/bin/env bash
# server_in_machine.sh XOS [--run-option=OPTION | ENGINE-OPTION]... -- TEST.py...: runs tests of servers natively and in a
# cell, in an emulated machine. A shortened test takes as long there as the whole test elsewhere.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
xos=$(realpath "$1")
shift
preload=$(realpath "$(dirname "$xos")/../lib/libxos-preload.so")

options=() run_options=()
while [[ $1 != -- ]]; do
    if [[ $1 == --run-option=* ]]; then run_options+=("$1"); else options+=("$1"); fi
    shift
done
shift

pack=(--program "$xos" --file "$preload=$preload")
for test in "$@" servers.py; do pack+=(--file "$here/$test=/programs/$test"); done
programs=(python3)
[[ " $* " != *redis* ]] || programs+=(redis-server redis-cli redis-benchmark redis-check-rdb)
[[ " $* " != *memcached* ]] || programs+=(memcached)
[[ " $* " != *sqlite* ]] || programs+=(sqlite3)
for name in "${programs[@]}"; do
    [[ -x /usr/bin/$name ]] || { echo "server_in_machine: /usr/bin/$name is missing; run tools/setup.sh test" >&2; exit 1; }
    pack+=(--program "/usr/bin/$name")
done
libraries=/usr/lib/x86_64-linux-gnu
for file in "$libraries"/libcrypto.so.3 "$libraries"/libffi.so.8 /usr/lib/python3.* /etc/passwd; do
    [[ -e $file ]] && pack+=(--file "$(realpath "$file")=$file")
done
exec "$here/../engines/qemu-svm.sh" --mem 2048 --timeout 840 "${options[@]}" "${pack[@]}" -- sh -c '
    ip link set lo up
    export XOS_REQUESTS=500 XOS_ROWS=2000 XOS_PATIENCE=120 XOS_PARTS="commands throughput snapshots"
    xos=$1 count=$2; shift 2
    tests= n=0
    while [ $n -lt $count ]; do tests="$tests $1"; n=$((n + 1)); shift; done
    for test in $tests; do
        echo "$test"
        /usr/bin/python3 /programs/$test "$@" "$xos" || exit 1
    done' sh "$xos" $# "$@" "${run_options[@]}"
