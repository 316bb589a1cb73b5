#!/usr/bin/env python3
"""trace_test.py XOS: what `xos run --trace` logs is what strace(1) sees of the same program natively.

strace sees a program from its exec on, but the preload library sees it only from where the dynamic linker calls it.
Therefore strace runs the program with another library in that library's place, whose constructor makes a call that
nobody else makes. What comes after that call is compared, call by call, process by process.
"""

import collections
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

MARKER = r"""
__attribute__((constructor)) static void mark(void) {
    long result;
    __asm__ volatile("syscall" : "=a"(result) : "a"(121), "D"(-4242) : "rcx", "r11", "memory");
}
"""

THREADED = r"""
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
static void* body(void* n) {
    for (long i = 0; i < 100; i++) syscall(SYS_getpgid, 0);
    void* p = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(p, 1 << 16);
    return n;
}
int main(void) {
    pthread_t threads[8];
    for (long i = 0; i < 8; i++) pthread_create(&threads[i], 0, body, (void*)i);
    for (long i = 0; i < 8; i++) pthread_join(threads[i], 0);
    return puts("done") < 0;
}
"""

SIGNALS = r"""
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void handler(int n) { (void)n; }
int main(void) {
    struct sigaction a = {.sa_handler = handler};
    sigaction(SIGUSR1, &a, 0);
    sigset_t none, one;
    sigemptyset(&none);
    sigemptyset(&one);
    sigaddset(&one, SIGUSR1);
    sigprocmask(SIG_BLOCK, &one, 0);
    kill(getpid(), SIGUSR1);
    sigsuspend(&none);
    chdir("/nonexistent");
    chdir((char*)8);
    int pid = fork();
    if (pid == 0) _exit(access("/", R_OK));
    waitpid(pid, 0, 0);
    return write(-1, "x", 1) == -1 && errno == EBADF ? 0 : 1;
}
"""

# Values that differ from run to run: only whether the call succeeded counts.
VARYING = {"mmap", "mremap", "brk", "clone", "clone3", "fork", "vfork", "wait4", "getpid", "gettid", "getppid",
           "set_tid_address", "rt_sigreturn", "shmat", "getrandom", "setsid", "getpgrp"}

failures = 0


def report(name, good, why=""):
    global failures
    print(f"{'ok  ' if good else 'FAIL'} {name}{'' if good else ': ' + why}")
    failures += not good


def outcome(name, result):
    if result.startswith("? ERESTART"):
        return "-1 EINTR"  # strace shows what the kernel says to itself
    if result == "?" or name in ("execve", "exit", "exit_group"):
        return result if result.startswith("-1") else "gone"
    if result.startswith("-1"):
        return result
    return "ok" if name in VARYING else int(result, 0)


def calls_of_strace(text):
    """[(name, outcome)] behind each exec's marker."""
    calls, seen = [], False
    for line in text.splitlines():
        match = re.match(r"(\w+)\((.*)\)?\s+= (\? ERESTART\w+|\?|-1 \w+|-?\w+)", line)
        if not match:
            continue
        name, arguments, result = match.groups()
        if name == "getpgid" and arguments.startswith("-4242"):
            seen = True
        elif name == "execve" and not result.startswith("-1"):
            if seen:
                calls.append((name, "gone"))
            seen = False
        elif seen:
            calls.append((name, outcome(name, result)))
    return calls


def calls_of_trace(lines):
    calls = []
    for line in lines:
        match = re.match(r"(\w+)\((.*)\) = (\?|-1 \w+|-?\w+) <(exit|emulated|local)( [\d.]+us)?>$", line)
        if not match:
            raise SystemExit(f"FAIL not a line of a trace: {line!r}")
        name, _, result = match.group(1), match.group(2), match.group(3)
        calls.append((name, outcome(name, result)))
    return calls


def natively(work, marker, program):
    """The calls of each of its threads, and its output."""
    for old in work.glob("strace.*"):
        old.unlink()
    ran = subprocess.run(["strace", "-ff", "-qq", "-s", "0", "-o", work / "strace", "-E", f"LD_PRELOAD={marker}", *program],
                         stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    calls = {}
    for file in work.glob("strace.*"):
        text = file.read_text(errors="replace")
        # All but the first thread begin behind the marker of who made them.
        if not text.startswith("execve("):
            text = "getpgid(-4242) = -1 ESRCH\n" + text
        calls[int(file.suffix[1:])] = calls_of_strace(text)
    return calls, ran


def in_cell(work, xos, program, *options):
    log = work / "trace"
    log.unlink(missing_ok=True)
    ran = subprocess.run([xos, "run", f"--trace={log}", *options, "--", *program], stdin=subprocess.DEVNULL,
                         capture_output=True, timeout=120)
    threads = collections.defaultdict(list)
    for line in log.read_text(errors="replace").splitlines():
        tid, call = line.split(" ", 1)
        threads[int(tid)].append(call)
    return {tid: calls_of_trace(lines) for tid, lines in threads.items()}, ran


def first_difference(a, b):
    for i in range(max(len(a), len(b))):
        x, y = (list_[i] if i < len(list_) else "nothing" for list_ in (a, b))
        if x != y:
            return f"call {i}: strace has {x}, the trace {y}"
    return ""


def compare(name, work, xos, marker, program, *options):
    native, ran = natively(work, marker, program)
    cell, ran_inside = in_cell(work, xos, program, *options)
    report(f"{name}: same output", (ran.returncode, ran.stdout, ran.stderr) ==
           (ran_inside.returncode, ran_inside.stdout, ran_inside.stderr), f"{ran} {ran_inside}")
    # Processes have other numbers; sorted by what they did, they are the same.
    expected, found = sorted(native.values()), sorted(cell.values())
    report(f"{name}: {sum(map(len, expected))} calls of {len(expected)} processes", expected == found,
           next((d for d in map(first_difference, expected, found) if d),
                f"{len(expected)} and {len(found)} processes"))


def count(name, work, xos, marker, program, names):
    native, _ = natively(work, marker, program)
    cell, _ = in_cell(work, xos, program)
    expected, found = (collections.Counter(call for calls in side.values() for call in calls if call[0] in names)
                       for side in (native, cell))
    report(f"{name}: counts", expected == found and len(native) == len(cell), f"{expected - found} {found - expected}")


def main():
    xos = pathlib.Path(sys.argv[1]).resolve()
    if not shutil.which("strace"):
        print("strace is not installed; run tools/setup.sh test")
        return 77
    os.environ["LC_ALL"] = "C"
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        marker = work / "marker.so"
        (work / "marker.c").write_text(MARKER)
        subprocess.run(["gcc", "-shared", "-fPIC", "-nostdlib", "-o", marker, work / "marker.c"], check=True)
        for name, source in (("threaded", THREADED), ("signals", SIGNALS)):
            (work / f"{name}.c").write_text(source)
            subprocess.run(["gcc", "-O1", "-w", "-pthread", "-o", work / name, work / f"{name}.c"], check=True)

        compare("cat", work, xos, marker, ["cat", "/etc/passwd", "/nonexistent"])
        compare("ls", work, xos, marker, ["ls", "-l", "/usr"])
        compare("memory from Linux", work, xos, marker, ["ls", "-l", "/usr"], "--mem=0")
        compare("signals and a child", work, xos, marker, [work / "signals"])
        compare("execs", work, xos, marker, ["sh", "-c", "true; cat /etc/hostname; exec echo $((6 * 7))"])
        compare("python", work, xos, marker, ["/usr/bin/python3", "-I", "-S", "-c", "print(len(bytearray(3 << 20)))"])
        count("threads", work, xos, marker, [work / "threaded"],
              {"clone", "clone3", "getpgid", "exit", "exit_group", "set_robust_list", "write"})
    return failures != 0


if __name__ == "__main__":
    sys.exit(main())
