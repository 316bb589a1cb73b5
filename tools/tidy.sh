#!/usr/bin/env bash
# tidy.sh BUILD-DIRECTORY [FILE...]: clang-tidy over the library and the tools (or the files given). clang 14
# does not know two of g++ 12's options, and its headers do not parse without floating point, so it gets a database without those.
set -euo pipefail
build=$1
shift
command -v clang-tidy >/dev/null || {
    echo "clang-tidy is missing: apt-get install clang-tidy"
    exit 1
}
database=$(mktemp -d)
trap 'rm -rf "$database"' EXIT
sed 's/-std=gnu++23/-std=gnu++2b/g; s/-fno-tree-loop-distribute-patterns//g; s/-mgeneral-regs-only//g' \
    "$build/compile_commands.json" >"$database/compile_commands.json"
if (($# == 0)); then
    mapfile -t files < <(git ls-files 'libxos/*.cpp' 'tools/*.cpp' 'examples/*.cpp' 'bench/*.cpp')
    set -- "${files[@]}"
fi
clang-tidy --quiet --warnings-as-errors='*' -p "$database" "$@"
