#!/usr/bin/env bash
# on_kvm.sh COMMAND...: runs a test that enters cells on this machine's own /dev/kvm. Where there is none, the test is
# skipped (77). The emulated machines run the same tests, except those that tests/announced-skips-without-kvm names.
set -euo pipefail
if ! [[ -c /dev/kvm && -r /dev/kvm && -w /dev/kvm ]]; then
    echo "SKIP: this machine has no /dev/kvm that the user may open, which this test needs; xos doctor says why"
    exit 77
fi
exec "$@"
