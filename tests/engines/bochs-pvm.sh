#!/bin/bash
# tests/engines/bochs-pvm.sh [OPTION]... -- COMMAND [ARGUMENT]...
#
# Runs COMMAND in the machine of bochs-vmx.sh, which has the options, after two changes that make its /dev/kvm look as a
# software KVM does (docs/modes.md): programs find no VMX in CPUID, and SYSCALL at CPL 3 of a guest goes to LSTAR without
# changing the ring. So the mode `pvm` is tested everywhere. What it does not tell: ring 0 is executed as by a processor,
# not interpreted, and takes no longer than ring 3.
set -euo pipefail
export BOCHS_SOFTWARE_KVM=1
exec "$(dirname "$(realpath "$0")")/bochs-vmx.sh" "$@"
