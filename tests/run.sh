#!/usr/bin/env bash
# run.sh [OPTION]... BUILD-DIRECTORY: runs every test, or those that an option chooses.
#
#   --repeat N        runs them N times
#   --but-programs    all but the real servers, interpreters and tool chains
#   --programs        only those
#   --short-programs  only those of them that take a minute
#   --only REGEX      only the tests whose whole name matches REGEX
#
# A test that cannot run here says why and counts as skipped. With CI=true a skip fails the run, unless
# tests/announced-skips names the test or, where there is no /dev/kvm, tests/announced-skips-without-kvm does.
set -euo pipefail

repeat=1
unit=yes
chosen=()
while [[ ${1-} == --* ]]; do
    case $1 in
        --repeat) repeat=$2; shift ;;
        --but-programs) chosen=(--label-exclude '^programs$') ;;
        --programs) chosen=(--label-regex '^programs$'); unit=no ;;
        --short-programs) chosen=(--label-regex '^programs$' --label-exclude '^long$'); unit=no ;;
        --only) chosen=(--tests-regex "^($2)\$" --no-tests=error); shift ;;
        *) echo "run.sh: no option $1" >&2; exit 2 ;;
    esac
    shift
done
build=$1
here=$(cd "$(dirname "$0")" && pwd)
announced=("$here/announced-skips")
[[ -c /dev/kvm ]] || announced+=("$here/announced-skips-without-kvm")

one_round() {
    local log
    log=$(mktemp)
    local status=0
    if [[ $unit == no ]]; then
        :
    elif [[ -x $build-asan/tests/xos_unit_test || -x $build-asan/bin/xos-unit-test ]]; then
        echo "== unit tests under ASan and UBSan"
        ctest --test-dir "$build-asan" --output-on-failure || status=1
    else
        echo "build-asan is missing: run \`make asan\`"
        status=1
    fi
    echo "== tests"
    ctest --test-dir "$build" "${chosen[@]}" -j "$(nproc)" --output-on-failure 2>&1 | tee "$log" || status=1
    while read -r name; do
        if [[ ${CI-} == true ]] && ! grep -qhx "$name" "${announced[@]}"; then
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
