#!/bin/bash
# tests/engines/bochs-vmx.sh [OPTION]... -- COMMAND [ARGUMENT]...
#
# Runs COMMAND in a machine that Bochs emulates, Intel's virtualisation included. The machine runs the stock Debian 6.1
# kernel with /dev/kvm (kvm_intel: EPT, unrestricted guest, VPID). This machine needs no virtualisation for it. The
# emulated machine has one processor by default, and MODEL is one of Bochs's, corei7_skylake_x by default. The time stamp
# counter always counts instructions. machine.sh has the options and exit statuses. This engine also reads
#
#   $XOS_BOCHS_DIR     where bochs.sh has put Bochs or shall put it; ~/.cache/libxos/bochs by default
set -euo pipefail
engine=bochs-vmx vendor=intel
# shellcheck source=tests/engines/machine.sh
. "$(dirname "$(realpath "$0")")/machine.sh"

bios=/usr/share/bochs/BIOS-bochs-latest
start_info=0x100000  # unused memory between BIOS and kernel
ips=100000000

check_emulator() {
    (( mem <= 3072 )) || fail 2 "memory beyond 3072 MB is not implemented"
    [[ -e $bios ]] || fail 125 "the BIOS is missing; run tools/setup.sh test"
    bochs=$("$here/bochs.sh") || fail 125 "there is no Bochs to run"
}

boot_sector() {
    as --32 --defsym START_INFO=$start_info "$here/pvh_boot.S" -o "$work/sector.o"
    ld -m elf_i386 -Ttext 0x7c00 --oformat binary "$work/sector.o" -o "$work/floppy"
    truncate -s 1440K "$work/floppy"
}

describe_machine() {
    local images i=0 file address
    # CPUID gives the frequency of the real processor, but the counter counts instructions, $ips a second by the
    # machine's other clocks. The self-tests of ciphers would take half as long as all the rest of the boot.
    words+=("tsc_early_khz=$((ips / 1000))" mitigations=off cryptomgr.notests)
    boot_sector
    truncate -s 512 "$work/no-vga"
    images=$(python3 "$here/pvh_image.py" "$kernel/vmlinux" "$work/initramfs" "$mem" "${words[*]}" \
        $start_info "$work") || fail 125 "the kernel could not be laid out"
    cat >"$work/bochsrc" <<END
display_library: nogui
memory: guest=$mem, host=$mem
romimage: file=$bios, options=fastboot
vgaromimage: file=$work/no-vga
cpu: model=${cpu:-corei7_skylake_x}, count=${smp:-1}, ips=$ips, reset_on_triple_fault=0
clock: sync=none
floppya: 1_44=$work/floppy, status=inserted
boot: floppy
ata0: enabled=0
ata1: enabled=0
speaker: enabled=0
com1: enabled=1, mode=file, dev=$work/console
com2: enabled=1, mode=file, dev=$work/output
log: -
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
END
    while read -r file address; do
        echo "optramimage$((++i)): file=$file, address=$address"
    done <<<"$images" >>"$work/bochsrc"
    emulator=("$bochs" -q -f "$work/bochsrc")
}

run_machine "$@"
