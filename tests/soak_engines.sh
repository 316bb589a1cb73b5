#!/usr/bin/env bash
# soak_engines.sh BUILD-DIRECTORY [SECONDS]: has hundreds of threads map and unmap at random beside a model, for that many
# seconds (20 by default), on this machine's /dev/kvm and on every emulated machine. A second of an emulated machine takes
# several real seconds.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
program=$1/bin/xos-guest-test
seconds=${2:-20}

echo "== this machine's /dev/kvm"
XOS_SOAK=$seconds "$program" "[soak]"
for engine in qemu-svm bochs-vmx; do
    for mode in ring0 ring3; do
        echo "== $engine, $mode"
        "$here/engines/$engine.sh" --timeout $((300 + 30 * seconds)) --file "$program=/guest-test" \
            -- sh -c "XOS_SOAK=$seconds /guest-test --xos-mode=$mode '[soak]'"
    done
done
