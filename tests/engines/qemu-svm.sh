#!/bin/bash
# tests/engines/qemu-svm.sh [OPTION]... -- COMMAND [ARGUMENT]...
#
# Runs COMMAND in a machine that QEMU emulates, AMD's virtualisation included. The machine runs the stock Debian 6.1
# kernel with /dev/kvm (kvm_amd, nested paging). This machine needs no virtualisation for it. The emulated machine has
# two processors by default, and MODEL is one of QEMU's, max by default. machine.sh has the options and exit statuses.
set -euo pipefail
engine=qemu-svm vendor=amd
# shellcheck source=tests/engines/machine.sh
. "$(dirname "$(realpath "$0")")/machine.sh"

check_emulator() {
    command -v qemu-system-x86_64 >/dev/null || fail 125 "QEMU is missing; run tools/setup.sh test"
}

describe_machine() {
    local icount=()
    if [[ $counting ]]; then
        # A string instruction counts once an element: with erms Linux would copy and clear pages byte by
        # byte and look eight times slower than it is.
        cpu=${cpu:-max,-erms,-fsrm} icount=(-icount "shift=0,sleep=off")
    fi
    emulator=(qemu-system-x86_64 -accel "tcg,thread=single" "${icount[@]}"
        -cpu "${cpu:-max}" -smp "${smp:-2}" -m "$mem" -nodefaults -display none -no-reboot
        -kernel "$kernel/vmlinux" -initrd "$work/initramfs" -append "${words[*]}"
        -serial "file:$work/console" -serial "file:$work/output")
}

run_machine "$@"
