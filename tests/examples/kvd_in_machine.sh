#!/usr/bin/env bash
# kvd_in_machine.sh KVD [ENGINE-OPTION]... [-- KVD-OPTION...]: runs kvd_drive.sh against a cell in an emulated machine.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
kvd=$(realpath "$1")
shift
engine=() pack=()
while (($#)) && [[ $1 != -- ]]; do engine+=("$1"); shift; done
# Busybox has a timeout and a tail, but not these ones.
for name in bash redis-cli redis-benchmark tail timeout; do
    path=$(command -v "$name") || { echo "kvd_in_machine: $name is missing; run tools/setup.sh test" >&2; exit 1; }
    pack+=(--program "$path")
done
exec "$here/../engines/qemu-svm.sh" --timeout 480 "${engine[@]}" "${pack[@]}" --file "$kvd=/kvd" \
    --file "$here/kvd_drive.sh=/kvd_drive.sh" \
    -- "$(command -v bash)" -c 'ip link set lo up && KVD_REQUESTS=2000 exec bash /kvd_drive.sh cell /kvd "$@"' bash "${@:2}"
