#!/usr/bin/env bash
# figures_doc_test.sh XOS SOURCE: the tables of the documents are what `xos bench` makes of the stored results.
# They are brought up to date by tools/figures.sh.
set -euo pipefail
xos=$1 source=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0
for document in README.md docs/benchmarks.md; do
    cp "$source/$document" "$work/document.md"
    "$source/tools/figures.sh" "$xos" "$work/document.md"
    diff -u "$source/$document" "$work/document.md" || { echo "FAIL $document is not what the results say"; status=1; }
done
exit $status
