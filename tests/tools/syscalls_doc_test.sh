#!/usr/bin/env bash
# syscalls_doc_test.sh XOS DOCUMENT: tests that docs/syscalls.md is what `xos syscalls --markdown` prints.
set -euo pipefail
if ! "$1" syscalls --markdown | diff -u "$2" - >&2; then
    echo "docs/syscalls.md differs from the table: write it anew by 'xos syscalls --markdown >docs/syscalls.md'" >&2
    exit 1
fi
# One row a call, each number once, and the last of Linux 6.12 among them.
rows=$(grep -cE '^\| [0-9]+ \| [a-z_0-9]+ \| (Linux|libxos|inside or Linux|inside or libxos|refused) \|' "$2")
numbers=$(grep -oE '^\| [0-9]+ ' "$2" | sort -u | wc -l)
[[ $rows == "$numbers" && $rows -ge 374 ]] || { echo "$rows rows, $numbers numbers" >&2; exit 1; }
grep -q '^| 462 | mseal |' "$2"
[[ $("$1" syscalls | wc -l) == "$rows" ]]
