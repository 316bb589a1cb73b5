#!/usr/bin/env bash
# in_machine.sh XOS [--run-option=OPTION | ENGINE-OPTION]... -- [NAME]...: the programs of pairs.list, natively and in a cell, in an
# emulated machine: taken along with their libraries and the files that they read.
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

pack=(--program "$xos" --file "$preload=$preload" --file "$here=/programs")
for name in awk bash cat date dash false find grep gzip head ls mawk perl python3 seq sh sha256sum sort sqlite3 \
            tail tar tr true xargs yes; do
    [[ -x /usr/bin/$name ]] || { echo "in_machine: /usr/bin/$name is missing; run tools/setup.sh test" >&2; exit 1; }
    pack+=(--program "/usr/bin/$name")
done
# What these load while they run.
libraries=/usr/lib/x86_64-linux-gnu
for file in "$libraries"/libcrypto.so.3 "$libraries"/libffi.so.8 /usr/lib/python3.* /usr/share/perl5 "$libraries/perl-base" \
            /usr/share/doc/bash \
            /etc/services /usr/bin/git; do
    [[ -e $file ]] && pack+=(--file "$(realpath "$file")=$file")
done
exec "$here/../engines/qemu-svm.sh" --mem 2048 --timeout 280 "${options[@]}" "${pack[@]}" \
    -- /usr/bin/python3 /programs/pairs.py "${run_options[@]}" "$xos" /programs/pairs.list "$@"
