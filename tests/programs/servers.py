"""What the tests of real servers share.

A test is a script `NAME.py [--run-option=OPTION]... XOS`. Its scenario runs twice, natively and under
`xos run`, and returns what a client of the server saw. Both clients must have seen the same. What may differ
(throughput, exits, memory) is printed. XOS_SOAK=1 asks for the longer form.

Afterwards nothing may be left: no process, no zombie, no shared memory.
"""

import contextlib
import ctypes
import json
import os
import pathlib
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

SOAK = os.environ.get("XOS_SOAK", "") not in ("", "0")
PATIENCE = float(os.environ.get("XOS_PATIENCE", "60"))
MOST_EXTRA_MIB = 25


class Failed(Exception):
    pass


def check(right, *what):
    if not right:
        raise Failed(" ".join(str(x) for x in what))


def tool(name, *more):
    """The path of a program that the test needs."""
    for candidate in (name, *more):
        path = shutil.which(candidate, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
        if path:
            return path
    print(f"{name} is missing; run tools/setup.sh test")
    sys.exit(1)


def free_port():
    """Below the range that Linux gives to clients, so that no client of another test takes it meanwhile."""
    while True:
        port = random.randrange(20000, 32000)
        with socket.socket() as s, contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind(("127.0.0.1", port))
            return port


def until(condition, what, patience=PATIENCE):
    """The first true answer of `condition`, which waits a moment itself if it can."""
    deadline = time.monotonic() + patience
    while True:
        answer = condition()
        if answer:
            return answer
        check(time.monotonic() < deadline, f"{what}: not within {patience:.0f} s")
        select.select([], [], [], 0.005)


def accepts(port):
    def condition():
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", port)) == 0
    return condition


def children_of(pid):
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            found += map(int, pathlib.Path(f"/proc/{pid}/task/{task}/children").read_text().split())
    return found


def descendants(pid):
    found = children_of(pid)
    return found + [d for child in found for d in descendants(child)]


def described(pid):
    with contextlib.suppress(OSError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        name, state = (re.search(rf"^{what}:\t(.*)", status, re.M)[1] for what in ("Name", "State"))
        return f"{pid} ({name}, {state})"
    return str(pid)


def resident(pid):
    """Bytes, or nothing when the process is gone."""
    with contextlib.suppress(OSError, TypeError):
        return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1]) << 10
    return None


def own_shared_memory():
    """Other programs of this machine come and go, so root looks at a System V and /dev/shm of its own."""
    libc = ctypes.CDLL(None)
    new_mounts, new_ipc, private, recursive = 0x20000, 0x8000000, 1 << 18, 1 << 14
    if os.geteuid() != 0 or libc.unshare(new_mounts | new_ipc) != 0:
        return
    if libc.mount(b"none", b"/", None, private | recursive, None) == 0 and os.path.isdir("/dev/shm"):
        libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"mode=1777")


def processor_time(pid):
    """Seconds of all threads, in the guest too."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def shared_memory():
    system_v = [line.split()[1] for line in pathlib.Path("/proc/sysvipc/shm").read_text().splitlines()[1:]] \
        if os.path.exists("/proc/sysvipc/shm") else []
    posix = os.listdir("/dev/shm") if os.path.isdir("/dev/shm") else []
    return {f"segment {x}" for x in system_v} | {f"/dev/shm/{x}" for x in posix}


class Server:
    def __init__(self, place, words, name, before=(), **more):
        self.log = place.directory / f"{name}.{len(place.servers)}.log"
        self.statistics = self.log.with_suffix(".json")
        # Whoever the server's processes become writes there.
        self.statistics.touch()
        self.statistics.chmod(0o666)
        environment = os.environ | ({"XOS_STATS": f"json:{self.statistics}"} if place.prefix else {})
        self.name = name
        # Not a descriptor of a test that is killed: whoever is left must not keep its pipes.
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen([*before, *place.prefix, *words], stdin=subprocess.DEVNULL,
                                            stdout=out, stderr=out, cwd=place.directory, env=environment, **more)
        self.pid = self.process.pid
        place.servers.append(self)

    def alive(self):
        return self.process.poll() is None

    def ready(self, condition):
        def now():
            check(self.alive(), f"{self.name} ended with status {self.process.returncode} while starting:\n"
                  + self.text()[-2000:])
            return condition()
        until(now, f"{self.name} ready")

    def ended(self, patience=PATIENCE):
        """Its status, as subprocess has it."""
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self.name} still runs after {patience:.0f} s; "
                         + ", ".join(map(described, [self.pid, *descendants(self.pid)]))) from None

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)

    def text(self):
        return self.log.read_text(errors="replace")

    def exits(self):
        """Of all of its processes that came to an end of their own."""
        lines = self.statistics.read_text().splitlines()
        check(lines, f"no statistics of {self.name}")
        return sum(sum(json.loads(line)["exits"].values()) for line in lines)

    def activity(self):
        """Whether it works or waits, for who asks why it has not answered."""
        lines, before = [], processor_time(self.pid)
        select.select([], [], [], 1)
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with contextlib.suppress(OSError):
                about = pathlib.Path(f"/proc/{self.pid}/task/{task}")
                lines.append(about.joinpath("stat").read_text().rsplit(")", 1)[1].split()[0]
                             + " " + about.joinpath("wchan").read_text() + " " + about.joinpath("syscall").read_text())
        return f"{self.name} works {processor_time(self.pid) - before:.2f} s in a second: {lines}; load {os.getloadavg()}"

    def complaints(self):
        return [line for line in self.text().splitlines() if line.startswith("xos:")]


class Place:
    """Where a scenario runs: natively or in a cell, in a directory of its own."""

    def __init__(self, name, prefix, directory):
        self.name, self.prefix, self.directory = name, prefix, directory
        self.servers = []
        self.figures = {}

    def start(self, words, name="server", **more):
        return Server(self, [str(w) for w in words], name, **more)

    def figure(self, name, value, unit=""):
        if name:
            self.figures[name] = (value, unit)

    def note_resident(self, pid, name="resident"):
        bytes_ = resident(pid)
        if bytes_:
            self.figure(name, bytes_ / 2**20, "MiB")

    def run(self, words, patience=PATIENCE, **more):
        """A client: always native. Its standard output."""
        try:
            done = subprocess.run([str(w) for w in words], capture_output=True, text=True, errors="replace",
                                  timeout=patience, stdin=more.pop("stdin", subprocess.DEVNULL), **more)
        except subprocess.TimeoutExpired as e:
            raise Failed(f"{e}; it said {(e.stdout or b'')[-300:]}; "
                         + "; ".join(server.activity() for server in self.servers if server.alive())) from None
        check(done.returncode == 0, *words, f"ended with {done.returncode}:", done.stdout[-500:], done.stderr[-500:])
        return done.stdout

    def end(self):
        for server in self.servers:
            if server.alive():
                server.kill()
                server.ended()


def reap_what_is_left(patience=10):
    """Orphans of the servers become children of this process, which must end up without any."""
    deadline = time.monotonic() + patience
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return []
        if pid == 0:
            if time.monotonic() > deadline:
                left = [described(p) for p in descendants(os.getpid())]
                for p in descendants(os.getpid()):
                    os.kill(p, signal.SIGKILL)
                return left
            select.select([], [], [], 0.005)


def print_figures(native, cell):
    for name, (value, unit) in cell.figures.items():
        if name not in native.figures:
            print(f"  {name:<32} {'':>12} {value:>12,.1f} {unit}")
            continue
        beside = native.figures[name][0]
        ratio = f"{value / beside:6.2f}x" if unit != "MiB" else f"{value - beside:+6.1f} MiB"
        print(f"  {name:<32} {beside:>12,.1f} {value:>12,.1f} {unit:<6} {ratio}")


def excesses(native, cell):
    """Of the short form: a longer one leaves more freed memory behind, which an arena keeps."""
    if SOAK:
        return
    for name, (value, unit) in cell.figures.items():
        if unit == "MiB" and name in native.figures and value > native.figures[name][0] + MOST_EXTRA_MIB:
            yield f"{name}: {value:.1f} MiB in the cell, {native.figures[name][0]:.1f} natively"


def differences(native, cell):
    for n, (a, b) in enumerate(zip([*native, "(end)"], [*cell, "(end)"]), 1):
        if a != b:
            yield f"  observation {n}:\n    natively    {str(a)[:600]!r}\n    in the cell {str(b)[:600]!r}"


def observe(scenario, place, wrong):
    """What the scenario sees there; what went wrong is added to `wrong`."""
    seen, began = [], time.monotonic()
    try:
        for x in scenario(place):
            seen.append(str(x).replace(str(place.directory), "$T"))
            if os.environ.get("XOS_VERBOSE"):
                print(f"{place.name} {time.monotonic() - began:.1f} s: {seen[-1][:200]}", flush=True)
    except (Failed, OSError, EOFError, subprocess.SubprocessError) as e:
        wrong.append(f"{place.name}: {type(e).__name__}: {e}")
        for server in place.servers[-2:]:
            tail = server.text().splitlines()[-15:]
            wrong += [f"{place.name}: {server.name}'s log ends with", *("    " + line for line in tail)]
    finally:
        place.end()
    if left := reap_what_is_left():
        wrong.append(f"{place.name}: left behind: " + ", ".join(left))
    for server in place.servers:
        wrong += [f"{place.name}: {server.name}: {line}" for line in server.complaints()]
    place.figure("seconds", time.monotonic() - began, "s")
    return seen


def keep(scratch, where):
    def special(directory, names):
        paths = ((name, os.path.join(directory, name)) for name in names)
        return [name for name, path in paths if not os.path.isdir(path) and not os.path.isfile(path)]
    shutil.copytree(scratch, where, dirs_exist_ok=True, symlinks=True, ignore=special)


def main(scenario):
    marker = "--run-option="
    options = [a[len(marker):] for a in sys.argv[1:] if a.startswith(marker)]
    rest = [a for a in sys.argv[1:] if not a.startswith(marker)]
    if len(rest) != 1:
        sys.exit(f"usage: {sys.argv[0]} [--run-option=OPTION]... XOS")
    set_child_subreaper = 36
    ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0)
    own_shared_memory()
    memory_before = shared_memory()
    under = [os.path.realpath(rest[0]), "run", *options, "--"]
    wrong = []
    with tempfile.TemporaryDirectory(prefix="xos-") as scratch:
        os.chmod(scratch, 0o755)  # servers give up their privileges
        places, seen = [], []
        for name, prefix in (("native", []), ("cell", under)):
            directory = pathlib.Path(scratch) / name
            directory.mkdir()
            places.append(Place(name, prefix, directory))
            seen.append(observe(scenario, places[-1], wrong))
            if wrong:
                break
        else:
            wrong += [*differences(*seen), *excesses(*places)]
            print(f"  {'':<32} {'native':>12} {'cell':>12}")
            print_figures(*places)
        if wrong and "XOS_KEEP" in os.environ:
            keep(scratch, os.environ["XOS_KEEP"])
    if left := shared_memory() - memory_before:
        wrong.append("shared memory left behind: " + ", ".join(sorted(left)))
    for line in wrong:
        print(line)
    print("FAIL" if wrong else f"PASS: {len(seen[0])} observations agree")
    sys.exit(1 if wrong else 0)
