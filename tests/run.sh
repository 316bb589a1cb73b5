#!/usr/bin/env bash
# run.sh [--repeat N] BUILD-DIRECTORY: every test, once or N times. A test that cannot run here says why and
# counts as skipped; with CI=true a skip that is not in tests/announced-skips fails the run.
set -euo pipefail

repeat=1
if [[ ${1-} == --repeat ]]; then
    repeat=$2
    shift 2
fi
build=$1
here=$(cd "$(dirname "$0")" && pwd)

one_round() {
    local log
    log=$(mktemp)
    local status=0
    echo "== unit tests under ASan and UBSan"
    if [[ -x $build-asan/tests/xos_unit_test || -x $build-asan/bin/xos-unit-test ]]; then
        ctest --test-dir "$build-asan" --output-on-failure || status=1
    else
        echo "build-asan is missing: run \`make asan\`"
        status=1
    fi
    echo "== all tests"
    ctest --test-dir "$build" -j "$(nproc)" --output-on-failure 2>&1 | tee "$log" || status=1
    while read -r name; do
        if [[ ${CI-} == true ]] && ! grep -qx "$name" "$here/announced-skips"; then
            echo "skipped without notice: $name"
            status=1
        fi
    done < <(sed -nE 's/^.*Test +#[0-9]+: ([^ ]+) \.+\*+Skipped.*$/\1/p' "$log")
    rm -f "$log"
    return $status
}

for ((i = 1; i <= repeat; i++)); do
    ((repeat > 1)) && echo "== round $i of $repeat"
    one_round
done
