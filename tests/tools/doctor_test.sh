#!/bin/bash
# tests/tools/doctor_test.sh XOS_BINARY
#
# Runs `xos doctor` on this machine and on the same machine with something broken, and compares verdict,
# advice and exit status. What is expected of the healthy machine depends on whether a cell can run here. Private
# mount namespaces hold what is broken, so those tests need root; without it they are skipped (77).
set -u -o pipefail

if [ $# -ne 1 ]; then
    echo "usage: $0 XOS_BINARY" >&2
    exit 2
fi
xos=$(realpath "$1")
limit=${DOCTOR_TIMEOUT:-60}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# A user without rights may not be able to walk to the build folder.
install -m 755 "$xos" "$work/xos"
failures=0

fail() {
    echo "FAIL: $case: $*" >&2
    sed 's/^/  | /' "$work/out" "$work/err" | head -60 >&2
    failures=$((failures + 1))
}

# The command under test, however it is wrapped; $status is its exit status.
run() {
    case=$1
    shift
    timeout --kill-after=5 "$limit" "$@" >"$work/out" 2>"$work/err" </dev/null
    status=$?
    case $status in 124 | 137) fail "not done after $limit seconds" ;; esac
}

status_is() { [ $status -eq "$1" ] || fail "status $status, not $1"; }
# One line, however the report was wrapped.
says() { tr -s '\n ' '  ' <"$work/out" | grep -qE -- "$1" || fail "does not say: $1"; }
is_quiet() { [ ! -s "$work/err" ] || fail "writes to standard error"; }

# json EXPRESSION...: every one is true of the report `r`.
json() {
    python3 -m json.tool "$work/out" >/dev/null 2>>"$work/err" || { fail "not JSON"; return; }
    local expression
    for expression; do
        python3 -c 'import json, sys
r = json.load(open(sys.argv[1]))
f = r["features"]
levels = {x["subject"]: x["level"] for x in r["findings"]}
sys.exit(0 if eval(sys.argv[2]) else 1)' "$work/out" "$expression" 2>>"$work/err" || fail "not true: $expression"
    done
}

# broken CASE SCRIPT [COMMAND...]: COMMAND (by default the doctor) where SCRIPT has been run first.
broken() {
    local name=$1 script=$2
    shift 2
    run "$name" unshare --mount --propagation private \
        bash -c "set -e; $script; exec \"\$@\"" bash "$@"
}

cannot_run() {
    status_is 1
    is_quiet
    says 'No cell can run here\.'
}

# ---- the machine as it is
run "usage: no command" "$work/xos"
status_is 2
run "usage: unknown option" "$work/xos" doctor --no-such-option
status_is 2
run "--version" "$work/xos" --version
status_is 0
says '^xos [0-9]+\.[0-9]+\.[0-9]+ $'

run "healthy" "$work/xos" doctor
healthy=$status
is_quiet
[ $status -le 1 ] || fail "status $status"
lines=$(wc -l <"$work/out")
if [ "$lines" -lt 15 ] || [ "$lines" -gt 45 ]; then fail "$lines lines are not a readable report"; fi
[ "$(awk 'length > 110' "$work/out" | wc -l)" -eq 0 ] || fail "lines are too long"
if LC_ALL=C grep -q $'\033' "$work/out"; then fail "colours"; fi
run "healthy, json" "$work/xos" doctor --json
status_is $healthy
is_quiet
json 'r["can_run"] == ("fail" not in levels.values())' 'f["kernel_release"]' 'f["numa_nodes"] >= 1' \
    'f["io_queue"]["transport"] == ("plain" if f["io_queue"]["reason"] else "io_uring")' \
    'f["io_uring"]["usable"] or f["io_queue"]["transport"] == "plain"'
if [ $healthy -eq 0 ]; then
    json 'r["mode"] in ("ring0", "pvm")' 'r["mode_reason"]' 'r["failure"] == ""' \
        'f["kind"] in ("vmx", "svm", "software")' \
        '(f["kind"] == "software") == (r["mode"] == "pvm") == f["cell"]["ring0_interpreted"]' \
        'f["kvm"]["api_version"] == 12' 'f["kvm"]["max_vcpus"] > 0' \
        'all(v is None or v >= 0 for v in r["costs_ns"].values())' \
        'r["costs_ns"]["empty_exit"] > 0' 'r["costs_ns"]["getppid"] > r["costs_ns"]["native_getppid"]' \
        'r["costs_ns"]["getppid"] > r["costs_ns"]["getppid_by_vector"] > 0' \
        'r["costs_ns"]["entry_and_leave"] > 0'
else
    echo "note: no cell can run here, so the failures are tested only as far as they come first" >&2
    json 'r["costs_ns"] is None' 'r["failure"]'
fi

# ---- limits of the process: no rights needed
if [ $healthy -eq 0 ]; then
    # Only a statically linked program starts without a descriptor to spare.
    if (ulimit -n 3; exec "$work/xos" --version) </dev/null >/dev/null 2>&1; then
        run "RLIMIT_NOFILE 3" bash -c 'ulimit -n 3; exec "$@"' bash "$work/xos" doctor
        cannot_run
        says 'fail /dev/kvm .*no file descriptor left -> Raise RLIMIT_NOFILE'
    fi
    run "RLIMIT_NOFILE 4" bash -c 'ulimit -n 4; exec "$@"' bash "$work/xos" doctor
    cannot_run
    says 'warn process limits 4 file descriptors.*raise .ulimit -n.'
    says 'fail cell '
    run "RLIMIT_NOFILE 8" bash -c 'ulimit -n 8; exec "$@"' bash "$work/xos" doctor
    [ $status -le 1 ] || fail "status $status"
    says 'warn process limits 8 file descriptors.*raise .ulimit -n.'
    if [ $status -eq 1 ]; then says 'fail cell .*(RLIMIT_NOFILE|Too many open files)'; fi
    run "RLIMIT_AS 200 MB" bash -c 'ulimit -v 200000; exec "$@"' bash "$work/xos" doctor
    cannot_run
    says 'warn process limits .*195 MiB of address space.*raise .ulimit -v.'
    says 'fail cell does not start: .*RLIMIT_AS'
    run "RLIMIT_AS 200 MB, json" bash -c 'ulimit -v 200000; exec "$@"' bash "$work/xos" doctor --json
    status_is 1
    json 'not r["can_run"]' 'f["cell"]["error"] == 12' '"RLIMIT_AS" in r["failure"]'
fi

# ---- a broken /dev/kvm: mounts of our own
finish() {
    [ $failures -eq 0 ] || { echo "$failures failures" >&2; exit 1; }
    exit "$1"
}
skip() {
    echo "SKIP: the cases that break /dev/kvm: $*" >&2
    finish 77
}
[ "$(id -u)" -eq 0 ] || skip "not root"
unshare --mount --propagation private true 2>/dev/null || skip "unshare --mount is not allowed here"

# /dev without kvm: the other devices stay.
without_kvm="mkdir '$work/dev'; mount -t tmpfs -o mode=755 none '$work/dev'
    for d in null zero full random urandom tty; do
        touch '$work/dev/'\$d; mount --bind /dev/\$d '$work/dev/'\$d
    done
    mount --rbind '$work/dev' /dev"
broken "no /dev/kvm" "$without_kvm" "$work/xos" doctor
rmdir "$work/dev"
cannot_run
says 'fail /dev/kvm does not exist -> '
says '(load|Load|loaded)'
says 'does not start: /dev/kvm does not exist'
broken "no /dev/kvm, json" "$without_kvm" "$work/xos" doctor --json
rmdir "$work/dev"
status_is 1
json 'not r["can_run"]' 'r["mode"] is None' 'r["costs_ns"] is None' 'not f["kvm"]["present"]' \
    'f["kvm"]["open_error"] == 2' 'f["cell"]["error"] == 2' 'f["kind"] == "none"' \
    'levels["/dev/kvm"] == "fail"'

[ -c /dev/kvm ] || skip "there is no /dev/kvm to break in other ways"
broken "/dev/kvm is not KVM" "mount --bind /dev/null /dev/kvm" "$work/xos" doctor
cannot_run
says 'fail /dev/kvm is not KVM: .*Inappropriate ioctl.*10, 232'
broken "/dev/kvm is not KVM, json" "mount --bind /dev/null /dev/kvm" "$work/xos" doctor --json
status_is 1
json 'not r["can_run"]' 'f["kvm"]["present"]' 'f["kvm"]["open_error"] is None' \
    'f["kvm"]["api_version_error"] == 25' 'f["kvm"]["api_version"] == 0'

# A device of our own, because the mode of the machine's is not ours to change.
private_device() {
    echo "mkdir '$work/device'; mount -t tmpfs -o mode=755,dev none '$work/device'
        mknod -m $1 '$work/device/kvm' c 10 232; mount --bind '$work/device/kvm' /dev/kvm"
}
can_mknod() { mknod -m 600 "$work/probe-node" c 10 232 2>/dev/null && rm "$work/probe-node"; }
if ! can_mknod; then
    skip "mknod is not allowed here"
fi
nobody=(setpriv --reuid 65534 --regid 65534 --clear-groups)
broken "no permission" "$(private_device 600)" "${nobody[@]}" "$work/xos" doctor
rmdir "$work/device"
cannot_run
says 'fail /dev/kvm exists, but may not be opened -> Its mode is 0600'
says 'does not start: no permission to open /dev/kvm'
broken "no permission, json" "$(private_device 660)" "${nobody[@]}" "$work/xos" doctor --json
rmdir "$work/device"
status_is 1
json 'f["kvm"]["open_error"] == 13' 'f["kvm"]["present"]' 'f["cell"]["error"] == 13' \
    '"usermod" in [x for x in r["findings"] if x["subject"] == "/dev/kvm"][0]["advice"]'
if [ $healthy -eq 0 ]; then
    broken "a device that nobody may open" "$(private_device 666)" "${nobody[@]}" "$work/xos" doctor
    rmdir "$work/device"
    status_is 0
    says 'A cell can run here, in mode (ring0|pvm)\.'
fi

finish 0
