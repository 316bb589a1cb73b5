#!/usr/bin/env bash
# on_kvm.sh COMMAND...: a test that enters cells on this machine's own /dev/kvm. Where there is none it is skipped (77):
# the emulated machines run the same tests, but for what tests/announced-skips-without-kvm names.
set -euo pipefail
if ! [[ -c /dev/kvm && -r /dev/kvm && -w /dev/kvm ]]; then
    echo "SKIP: this machine has no /dev/kvm that the user may open, which this test needs; xos doctor says why"
    exit 77
fi
exec "$@"
