#!/usr/bin/env python3
"""Runs kvd on Linux and in a cell, side by side, and prints what the cell costs or wins.

    compare.py --kvd PATH [--requests N] [--clients C] [--threads T] [--mode M]

Both servers run at the same time and are driven alternately (A/B, then B/A), so that drift of the
machine hits both. Exits per request come from two INFO calls around each run; they include the
server's idle ticks (ten a second). The exit status is 1 when a reply was wrong.
"""

import argparse
import csv
import re
import select
import statistics
import subprocess
import sys
from dataclasses import dataclass, field

READY = re.compile(r"kvd: ready on 127\.0\.0\.1:(\d+) engine=(\w+) mode=(\w+)")
ROUNDS = 3
TIMEOUT = 600  # seconds for one run of a tool
WORKLOADS = [  # title, redis-benchmark's test, requests in flight a client
    ("SET", "set", 1),
    ("GET", "get", 1),
    ("SET -P 16", "set", 16),
    ("GET -P 16", "get", 16),
]


class Wrong(Exception):
    """A server failed or answered something else than it should."""


@dataclass
class Server:
    engine: str
    mode: str
    port: int
    process: subprocess.Popen

    def cli(self, *arguments):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *arguments], timeout=TIMEOUT,
                              capture_output=True, text=True)
        if done.returncode != 0:
            raise Wrong(f"{self.engine}: redis-cli {arguments}: {done.stderr.strip()}")
        return done.stdout.rstrip("\n")

    def info(self):
        lines = (line.strip().split(":", 1) for line in self.cli("INFO").splitlines())
        return {pair[0]: pair[1] for pair in lines if len(pair) == 2}

    def end(self):
        self.process.terminate()
        try:
            status = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Wrong(f"{self.engine}: still running 20 s after SIGTERM") from None
        if status != 0:
            raise Wrong(f"{self.engine}: exit status {status}")


@dataclass
class Samples:
    rate: list = field(default_factory=list)
    p50: list = field(default_factory=list)
    p99: list = field(default_factory=list)
    exits: list = field(default_factory=list)


def start(options, engine):
    command = [options.kvd, f"--engine={engine}", "--port", "0", "--threads", str(options.threads)]
    if engine == "cell":
        command.append(f"--mode={options.mode}")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        readable, _, _ = select.select([process.stdout], [], [], 60)
        line = process.stdout.readline() if readable else ""
        ready = READY.match(line)
        if not ready:
            raise Wrong(f"{engine}: kvd did not become ready: {line!r}")
    except BaseException:
        process.kill()
        process.wait()
        raise
    return Server(engine, ready[3], int(ready[1]), process)


def benchmark(server, options, test, pipeline):
    """One run: (requests per second, p50 ms, p99 ms, exits per request)."""
    before = server.info()
    done = subprocess.run(
        ["redis-benchmark", "-p", str(server.port), "--csv", "-t", test, "-P", str(pipeline),
         "-n", str(options.requests), "-c", str(options.clients)],
        timeout=TIMEOUT, capture_output=True, text=True)
    after = server.info()
    rows = [row for row in csv.DictReader(done.stdout.splitlines()) if row["test"] == test.upper()]
    if done.returncode != 0 or len(rows) != 1 or "error" in done.stderr.lower():
        raise Wrong(f"{server.engine}: redis-benchmark {test}: {done.stdout} {done.stderr}")

    def grown(name):
        return int(after[name]) - int(before[name])

    row = rows[0]
    return (float(row["rps"]), float(row["p50_latency_ms"]), float(row["p99_latency_ms"]),
            grown("exits_total") / grown("total_commands_processed"))


def verify(servers):
    """The same commands get the same, right replies from every server."""
    dialogue = [
        (("FLUSHALL",), "OK"),
        (("SET", "key", "value"), "OK"),
        (("GET", "key"), "value"),
        (("SET", "key", "x" * 100_000), "OK"),
        (("GET", "key"), "x" * 100_000),
        (("INCR", "n"), "1"),
        (("INCR", "key"), "ERR value is not an integer or out of range"),
        (("MGET", "n", "absent"), "1\n"),
        (("SET", "key", "v", "EX", "100"), "OK"),
        (("TTL", "key"), "100"),
        (("DEL", "key", "n"), "2"),
        (("DBSIZE",), "0"),
    ]
    for command, expected in dialogue:
        for server in servers:
            got = server.cli(*command)
            if got.strip("\n") != expected.strip("\n"):
                raise Wrong(f"{server.engine}: {command[:2]}: expected {expected[:60]!r},"
                            f" got {got[:60]!r}")


def measure(servers, options):
    results = {}
    for title, test, pipeline in WORKLOADS:
        for round_number in range(ROUNDS):
            order = servers if round_number % 2 == 0 else servers[::-1]
            for server in order:
                samples = results.setdefault((title, server.engine), Samples())
                rate, p50, p99, exits = benchmark(server, options, test, pipeline)
                samples.rate.append(rate)
                samples.p50.append(p50)
                samples.p99.append(p99)
                samples.exits.append(exits)
    return results


def report(results, servers, options):
    modes = ", ".join(f"{s.engine} (mode {s.mode})" for s in servers)
    print(f"{modes}; {options.requests} requests, {options.clients} clients,"
          f" {options.threads} threads, median of {ROUNDS}")
    print(f"{'workload':<12}{'engine':<8}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}"
          f"{'exits/request':>15}{'cell/linux':>12}")
    median = statistics.median
    for title, _, _ in WORKLOADS:
        base = median(results[title, "linux"].rate)
        for engine in ("linux", "cell"):
            s = results[title, engine]
            cell_only = (f"{median(s.exits):>15.2f}{median(s.rate) / base:>12.3f}"
                         if engine == "cell" else "")
            print(f"{title:<12}{engine:<8}{median(s.rate):>12.0f}{median(s.p50):>9.3f}"
                  f"{median(s.p99):>9.3f}{cell_only}")


def run(options):
    servers = []
    try:
        for engine in ("linux", "cell"):
            servers.append(start(options, engine))
        verify(servers)
        results = measure(servers, options)
        verify(servers)
        report(results, servers, options)
    finally:
        failures = []
        for server in servers:
            try:
                server.end()
            except Wrong as failure:
                failures.append(str(failure))
        if failures:
            raise Wrong("; ".join(failures))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kvd", required=True, help="path of the kvd binary")
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1, help="worker threads of each server")
    parser.add_argument("--mode", default="auto", choices=["auto", "ring0", "ring3", "pvm"])
    try:
        run(parser.parse_args())
    except (Wrong, subprocess.TimeoutExpired) as failure:
        print(f"compare.py: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
