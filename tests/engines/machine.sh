# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # variables that go from and to the engine
# tests/engines/machine.sh   What the engines have in common. Each engine sources this file, defines
#
#   engine, vendor   its name, and whose KVM module its processors want: amd or intel
#   check_emulator   fails with a sentence when the emulator cannot be had
#   describe_machine sets the array `emulator`, the command that runs the machine, from the variables
#                    below. The first serial port goes to the file $work/console, the second to the
#                    pipe $work/output.
#
# and calls `run_machine "$@"`. These are the options of every engine:
#
#   --program PATH     takes PATH along, with its shared libraries, to the same path
#   --file SRC=/DEST   takes a file or a directory along
#   --module PATH      loads a kernel module after KVM's
#   --smp N            processors
#   --mem MB           memory, 1024 by default
#   --cpu MODEL        another CPU model of the emulator's
#   --icount           one processor whose time stamp counter counts instructions: repeatable measurements
#   --append WORDS     more words for the kernel command line, such as transparent_hugepage=never
#   --timeout S        for the run of the machine
#   --kernel-dir DIR   where kernel.sh has put the kernel or shall put it;
#                      $XOS_KERNEL_DIR or ~/.cache/libxos/kernel by default
#
# COMMAND's standard output and error, mixed, go to standard output; it has no standard input. The exit
# status is COMMAND's own, except that it is 124 if the kernel reported a bug or a warning, 125 if the machine
# did not get to the end, and 2 for a wrong option.

fail() { echo "$engine: $2" >&2; exit "$1"; }

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
cache=${XDG_CACHE_HOME:-$HOME/.cache}/libxos
kernel=${XOS_KERNEL_DIR:-$cache/kernel}
smp='' mem=1024 cpu='' timeout=120 counting='' work='' machine=''
# The emulated counters run together, but Linux trusts those of several AMD processors only when told to, and
# would read the clock by system call, unlike on the machines that libxos is for.
words=(console=ttyS0 quiet panic=-1 nokaslr tsc=reliable)
pack=() emulator=()

read_options() {
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
            --icount)     counting=yes ;;
            *) fail 2 "unknown option $1" ;;
        esac
        shift
    done
    (( $# > 1 )) || fail 2 "usage: $engine.sh [OPTION]... -- COMMAND [ARGUMENT]..."
    shift
    run=("$@")
    # Mitigations are not what is measured.
    if [[ $counting ]]; then smp=1; words+=(mitigations=off); fi
}

# shellcheck disable=SC2317  # a trap calls it
clean_up() {
    # timeout(1) passes the signal on to the emulator.
    if [[ $machine ]]; then kill "$machine" && wait "$machine"; fi 2>/dev/null || true
    rm -rf "$work"
}

# The shell in the machine gets every argument as it is.
quote() { printf exec; for word; do printf " '%s'" "${word//\'/\'\\\'\'}"; done; echo; }

# Sets `ended`, the emulator's status.
run_emulator() {
    mkfifo "$work/output"
    cat "$work/output" &
    local stream=$!
    # The pipe is open from the beginning, so that cat ends also when the emulator has never opened it.
    timeout --kill-after=5 "$timeout" "${emulator[@]}" </dev/null >"$work/emulator" 2>&1 3>"$work/output" &
    machine=$!
    ended=0
    wait "$machine" || ended=$?
    machine=
    wait "$stream" || true
}

# Ends the script: as COMMAND did, if the machine got that far.
report() {
    local status reason
    touch "$work/console"
    tr -d '\r' <"$work/console" >"$work/lines"
    status=$(sed -n 's/^XOS-ENGINE-EXIT //p' "$work/lines")
    if [[ ! $status ]]; then
        case $ended in
            124|137) reason="the machine was not done after $timeout seconds" ;;
            0) reason="the machine stopped before the command was done" ;;
            *) reason="the emulator failed with status $ended" ;;
        esac
        tail -40 "$work/lines" | sed 's/^/  console: /' >&2
        tail -20 "$work/emulator" | sed 's/^/  emulator: /' >&2
        fail 125 "$reason"
    fi
    if grep '^XOS-ENGINE-DMESG ' "$work/lines" >&2; then
        fail 124 "the machine's kernel reported a bug or a warning; the command's status was $status"
    fi
    exit "$status"
}

run_machine() {
    read_options "$@"
    check_emulator
    work=$(mktemp -d)
    trap clean_up EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    quote "${run[@]}" >"$work/run-command"
    "$here/kernel.sh" "$kernel" || fail 125 "there is no kernel to boot"
    "$here/initramfs.sh" "$work/initramfs" "$kernel" "$vendor" "$work/run-command=/run-command" "${pack[@]}" ||
        fail 125 "the initramfs could not be packed"
    describe_machine
    run_emulator
    report
}
