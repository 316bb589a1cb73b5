#!/bin/bash
# tests/engines/qemu-svm.sh [OPTION]... -- COMMAND [ARGUMENT]...
#
# Runs COMMAND in a machine that QEMU emulates, AMD's virtualisation included: the stock Debian 6.1 kernel
# with /dev/kvm (kvm_amd, nested paging). Needs no virtualisation on this machine.
#
#   --program PATH     takes PATH along, with its shared libraries, to the same path
#   --file SRC=/DEST   takes a file or a directory along
#   --module PATH      loads a kernel module after KVM's
#   --smp N            processors, 2 by default
#   --mem MB           memory, 1024 by default
#   --cpu MODEL        QEMU's CPU model, max by default
#   --icount           one processor whose time stamp counter counts instructions: repeatable measurements
#   --append WORDS     more words for the kernel command line, such as transparent_hugepage=never
#   --timeout S        for all of it, 120 seconds by default
#   --kernel-dir DIR   where kernel.sh has put the kernel or shall put it;
#                      $XOS_KERNEL_DIR or ~/.cache/libxos/kernel by default
#
# COMMAND's standard output and error, mixed, go to standard output; it has no standard input. The exit
# status is COMMAND's, but 124 if its kernel reported a bug or a warning, 125 if the machine did not get to
# the end, and 2 for a wrong option.
set -euo pipefail

fail() { echo "qemu-svm: $2" >&2; exit "$1"; }

here=$(dirname "$(realpath "$0")")
kernel=${XOS_KERNEL_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/libxos/kernel}
smp=2 mem=1024 cpu=max timeout=120
icount=()
# The emulated counters run together, but Linux trusts those of several AMD processors only when told to, and
# would read the clock by system call, unlike on the machines that libxos is for.
words=(console=ttyS0 quiet panic=-1 nokaslr tsc=reliable)
pack=()
while (( $# )) && [[ $1 != -- ]]; do
    [[ $1 == --icount ]] || (( $# > 1 )) || fail 2 "$1 needs a value"
    case $1 in
        --program)    pack+=(--program "$2"); shift ;;
        --file)       pack+=("$2"); shift ;;
        --module)     pack+=(--module "$2"); shift ;;
        --smp)        smp=$2; shift ;;
        --mem)        mem=$2; shift ;;
        --cpu)        cpu=$2; shift ;;
        --append)     words+=("$2"); shift ;;
        --timeout)    timeout=$2; shift ;;
        --kernel-dir) kernel=$2; shift ;;
        # A string instruction counts once an element: with erms Linux would copy and clear pages byte by
        # byte and look eight times slower than it is. Mitigations are not what is measured.
        --icount)     smp=1 cpu=max,-erms,-fsrm icount=(-icount "shift=0,sleep=off"); words+=(mitigations=off) ;;
        *) fail 2 "unknown option $1" ;;
    esac
    shift
done
(( $# > 1 )) || fail 2 "usage: qemu-svm.sh [OPTION]... -- COMMAND [ARGUMENT]..."
shift
command -v qemu-system-x86_64 >/dev/null || fail 125 "QEMU is missing; run tools/setup.sh test"

work=$(mktemp -d)
machine=
# shellcheck disable=SC2317  # the trap below calls it
clean_up() {
    # timeout(1) passes the signal on to QEMU.
    if [[ $machine ]]; then kill "$machine" && wait "$machine"; fi 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

# The guest's shell gets every argument as it is.
{ printf exec; for word; do printf " '%s'" "${word//\'/\'\\\'\'}"; done; echo; } >"$work/run-command"

"$here/kernel.sh" "$kernel" || fail 125 "there is no kernel to boot"
"$here/initramfs.sh" "$work/initramfs" "$kernel" amd "$work/run-command=/run-command" "${pack[@]}" ||
    fail 125 "the initramfs could not be packed"

# The first serial port is the console, the second the command's output: see init. QEMU makes its standard
# output non-blocking, and with it the caller's if they were the same.
mkfifo "$work/output"
cat "$work/output" &
stream=$!
timeout --kill-after=5 "$timeout" \
    qemu-system-x86_64 -accel tcg,thread=single "${icount[@]}" -cpu "$cpu" -smp "$smp" -m "$mem" \
    -nodefaults -display none -no-reboot \
    -kernel "$kernel/vmlinux" -initrd "$work/initramfs" -append "${words[*]}" \
    -serial "file:$work/console" -serial stdio </dev/null >"$work/output" &
machine=$!
ended=0
wait "$machine" || ended=$?
machine=
wait "$stream" || true

touch "$work/console"
tr -d '\r' <"$work/console" >"$work/lines"
status=$(sed -n 's/^XOS-ENGINE-EXIT //p' "$work/lines")
if [[ ! $status ]]; then
    case $ended in
        124|137) reason="the machine was not done after $timeout seconds" ;;
        0) reason="the machine stopped before the command was done" ;;
        *) reason="QEMU failed with status $ended" ;;
    esac
    tail -40 "$work/lines" | sed 's/^/  console: /' >&2
    fail 125 "$reason"
fi
if grep '^XOS-ENGINE-DMESG ' "$work/lines" >&2; then
    fail 124 "the machine's kernel reported a bug or a warning; the command's status was $status"
fi
exit "$status"
