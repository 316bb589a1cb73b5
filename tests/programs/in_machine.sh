#!/usr/bin/env bash
# in_machine.sh XOS [--list=LIST] [--programs=DIRECTORY] [--run-option=OPTION | ENGINE-OPTION]... -- [NAME]...
#
# Runs the programs of pairs.list (or of LIST, beside it, with $P in DIRECTORY) natively and in a cell, in an emulated
# machine. The programs are taken there with their libraries and the files that they read.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
xos=$(realpath "$1")
shift
preload=$(realpath "$(dirname "$xos")/../lib/libxos-preload.so")

list=pairs.list programs='' options=() run_options=()
while [[ $1 != -- ]]; do
    case $1 in
        --run-option=*) run_options+=("$1") ;;
        --list=*) list=${1#*=} ;;
        --programs=*) programs=$(realpath "${1#*=}"); run_options+=("--programs=$programs") ;;
        *) options+=("$1") ;;
    esac
    shift
done
shift

loader=$(dirname "$preload")/xos/xos-loader
pack=(--program "$xos" --file "$preload=$preload" --file "$loader=$loader" --file "$here=/programs")
if [[ $programs ]]; then
    musl=/lib/ld-musl-x86_64.so.1
    pack+=(--file "$programs=$programs" --file "$(realpath $musl)=$musl" --program /usr/bin/env)
fi
for name in awk bash cat date dash false find grep gzip head ls mawk perl python3 seq sh sha256sum sort sqlite3 \
            tail tar tr true xargs yes; do
    [[ -x /usr/bin/$name ]] || { echo "in_machine: /usr/bin/$name is missing; run tools/setup.sh test" >&2; exit 1; }
    pack+=(--program "/usr/bin/$name")
done
# What these load while they run.
libraries=/usr/lib/x86_64-linux-gnu
for file in "$libraries"/libcrypto.so.3 "$libraries"/libffi.so.8 $(find /usr/lib/python3.* -mindepth 1 -maxdepth 1 ! -name test) /usr/share/perl5 "$libraries/perl-base" \
            /usr/share/doc/bash \
            /etc/services /usr/bin/git; do
    [[ -e $file ]] && pack+=(--file "$(realpath "$file")=$file")
done
exec "$here/../engines/qemu-svm.sh" --mem 2048 --timeout 560 "${options[@]}" "${pack[@]}" \
    -- /usr/bin/python3 /programs/pairs.py "${run_options[@]}" "$xos" "/programs/$list" "$@"
