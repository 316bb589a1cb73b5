#!/usr/bin/env bash
# tools/figures.sh XOS DOCUMENT...: puts the stored results, bench/results/*.json, into the tables of documents.
set -euo pipefail
xos=$1
shift
from=()
for engine in qemu-svm bochs-vmx; do
    for file in "$(dirname "$0")/../bench/results/$engine"*.json; do from+=(--from "$file"); done
done
for document; do "$xos" bench "${from[@]}" --markdown "$document"; done
