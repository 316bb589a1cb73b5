#!/usr/bin/env bash
# headers_test.sh COMPILER INCLUDE-DIRECTORY: tests that in an older C++ the only message for each public header is that it
# needs C++20.
set -euo pipefail
compiler=$1 include=$2
export LC_ALL=C
wanted='error: #error "libxos needs C++20 (-std=c++20)"'
failures=0
for header in "$include"/xos/*.hpp "$include"/xos/sched/*.hpp; do
    name=${header#"$include"/}
    for standard in 11 14 17; do
        said=$("$compiler" -std=c++$standard -I"$include" -x c++ -fsyntax-only - 2>&1 <<<"#include <$name>") &&
            { echo "FAIL $name compiles as C++$standard"; failures=$((failures + 1)); continue; }
        said=$(grep -E '(error|warning): ' <<<"$said")
        [[ $said == *"$wanted" && $(wc -l <<<"$said") == 1 ]] ||
            { echo "FAIL $name as C++$standard: ${said:0:1000}"; failures=$((failures + 1)); }
    done
done
exit $((failures != 0))
