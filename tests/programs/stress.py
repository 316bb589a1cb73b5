#!/usr/bin/env python3
"""stress-ng's stressors, which verify what they do, natively and under `xos run`.

    stress.py [--run-option=OPTION]... XOS [STRESSOR...]

Exit status, reported failures and what libxos has to say must be the same. Without names, the stressors of the
core's subjects run for a second each, several at a time. With XOS_SOAK=1 more of them run, each alone with two
instances for ten seconds.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile

GROUPS = ("vm mmap mremap mprotect madvise msync munmap brk malloc",
          "fork vfork clone pthread spawn exec exit-group vforkmany",
          "sigsegv sigq sigfd sigsuspend sigpending signest sigchld sigabrt sigrt",
          "timer itimer alarm bad-altstack stack stackmmap sigfpe longjmp",
          "futex pipe sockpair switch yield shm shm-sysv memfd userfaultfd",
          "sigtrap sigio sigpipe signal context mutex sem eventfd")
MORE = ("mmapfixed mmapaddr mmapmany mlock vm-rw vm-segv vm-splice remap cpu nanosleep clock poll sleep mq msg zombie"
        " wait tee sendfile prctl personality session procfs env get kcmp membarrier inotify epoll close atomic pidfd"
        " pkey null nop vdso timerfd locka schedpolicy far-branch regs full sysbadaddr dev-shm fifo funccall hrtimers"
        " kill peterson ring-pipe sem-sysv splice sync-file vecmath fault")
# Which mappings there are is the cell's own business (docs/differences.md):
#   mincore          looks for a page that nobody has mapped
#   seccomp          forbids system calls that libxos makes for the application
#   enosys           forks by INT 80h, past the cell
#   usersyscall      has the kernel raise SIGSYS for calls from anywhere but the application
SETTINGS = ["--vm-bytes", "64M", "--mmap-bytes", "32M", "--mremap-bytes", "16M", "--msync-bytes", "8M",
            "--memfd-bytes", "32M", "--shm-bytes", "4M", "--shm-sysv-bytes", "4M", "--userfaultfd-bytes", "8M",
            "--malloc-bytes", "32M", "--brk-bytes", "64M", "--stack-fill", "--pthread-max", "32", "--fork-max", "2",
            "--vfork-max", "2", "--clone-max", "8", "--vforkmany-bytes", "8M", "--mmapmany-bytes", "32M",
            # A million a second is more than can be delivered where leaving the guest takes 30 us.
            "--timer-freq", "1000", "--itimer-freq", "1000", "--timerfd-freq", "1000", "--hrtimers-procs", "4"]


def accepted(settings):
    """The settings that this stress-ng knows."""
    text = subprocess.run(["stress-ng", "--help"], capture_output=True, text=True).stdout
    kept, at = [], 0
    while at < len(settings):
        width = 1 if at + 1 == len(settings) or settings[at + 1].startswith("--") else 2
        if re.search(re.escape(settings[at]) + r"\b", text):
            kept += settings[at:at + width]
        at += width
    return kept


def run(prefix, stressors, instances, seconds, settings):
    with tempfile.TemporaryDirectory() as scratch:
        command = [*prefix, "stress-ng", "--verify", "--metrics-brief", "--temp-path", scratch, "--timeout",
                   str(seconds), *settings]
        for name in stressors:
            command += ["--" + name, str(instances)]
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds + 90)
        except subprocess.TimeoutExpired as late:
            return f"no end within {seconds + 90} s", [], {}, str(late.output)
    text = done.stdout + done.stderr
    complaints = sorted({re.sub(r"0x[0-9a-f]+|\d+", "N", line).replace("stress-ng: ", "")
                         for line in text.splitlines() if re.search(r"xos: this|fail:|error:", line)})
    work = {m[1]: int(m[2]) for m in re.finditer(r"metrc: \[\d+\] ([a-z][\w-]*) +(\d+) ", text)}
    return done.returncode, complaints, work, text


def run_until_all_begin(prefix, stressors, instances, seconds, settings):
    """A stressor that has not begun when the time is over says that it had no resources; then it gets more time."""
    no_resource = 3
    for time in (seconds, 4 * seconds, 16 * seconds):
        result = run(prefix, stressors, instances, time, settings)
        if result[0] != no_resource:
            break
    return result


def compare(xos, options, stressors, instances, seconds, settings):
    native = run_until_all_begin([], stressors, instances, seconds, settings)
    cell = run_until_all_begin([xos, "run", *options, "--"], stressors, instances, seconds, settings)
    wrong = []
    if native[0] != cell[0]:
        wrong.append(f"exit status: natively {native[0]}, in the cell {cell[0]}")
    wrong += [f"only in the cell: {line}" for line in cell[1] if line not in native[1]]
    if seconds > 5:  # less may end before a stressor has counted anything
        wrong += [f"{name} did nothing in the cell" for name in native[2] if native[2][name] and not cell[2].get(name)]
    done = sum(count > 0 for count in native[2].values())
    if not done:
        wrong.append("nothing was done natively")
    print(f"{'FAIL' if wrong else 'ok  '} {' '.join(stressors)}: {done} did their work", flush=True)
    for line in wrong:
        print("    " + line)
    if wrong:
        print("\n".join("      " + line for line in cell[3].splitlines()[-60:]))
    return not wrong


def main():
    marker = "--run-option="
    options = [a[len(marker):] for a in sys.argv[1:] if a.startswith(marker)]
    xos, *names = [a for a in sys.argv[1:] if not a.startswith(marker)]
    if not shutil.which("stress-ng"):
        print("stress: stress-ng is missing; run tools/setup.sh test", file=sys.stderr)
        return 1
    soak = bool(os.environ.get("XOS_SOAK"))
    if names:
        groups = [[name] for name in names]
    elif soak:
        groups = [[name] for name in " ".join([*GROUPS, MORE]).split()]
    else:
        groups = [group.split() for group in GROUPS]
    settings = accepted(SETTINGS)
    instances, seconds = (2, 10) if soak else (1, 1)
    failed = sum(not compare(os.path.abspath(xos), options, group, instances, seconds, settings) for group in groups)
    print(f"{len(groups) - failed} groups the same, {failed} not")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
