#!/usr/bin/env python3
"""redis-server: commands, load, snapshots by fork under load, AOF, kill -9, signals during a fork.

    redis_server.py [--run-option=OPTION]... XOS
"""

import itertools
import os
import re
import signal
import subprocess
import threading

import servers
from servers import SOAK, Failed, check, until

REQUESTS = int(os.environ.get("XOS_REQUESTS", 200000 if SOAK else 10000))
KEYS = REQUESTS // 2
SNAPSHOTS = 20 if SOAK else 3

# What redis-cli must answer, so in both places the same.
COMMANDS = """
PING
SET key value
GET key
APPEND key more
STRLEN key
SETRANGE key 3 XYZ
GETRANGE key 0 -1
INCRBYFLOAT f 10.5
INCR n
SETBIT bits 70000 1
BITCOUNT bits
RPUSH list a b c d
LRANGE list 0 -1
LPOP list 2
SADD set 3 1 2
SMEMBERS set
ZADD z 1 a 2.5 b -3 c
ZRANGE z 0 -1 WITHSCORES
HSET h f1 v1 f2 v2
HGETALL h
XADD stream 1-1 k v
XRANGE stream - +
PFADD hll a b c
PFCOUNT hll
GEOADD geo 13.361389 38.115556 Palermo
GEOHASH geo Palermo
EVAL "local s = 0; for i = 1, 100000 do s = s + i end; return {s, redis.call('GET', KEYS[1])}" 1 key
OBJECT ENCODING set
EXPIRE key 1000
PERSIST key
RENAME key other
TYPE other
SORT set DESC
WRONG
INCR other
DEBUG DIGEST
DBSIZE
"""


class Redis:
    def __init__(self, place, directory="data", **settings):
        self.place = place
        self.port = servers.free_port()
        self.data = place.directory / directory
        self.data.mkdir(exist_ok=True)
        settings = {"port": self.port, "bind": "127.0.0.1", "dir": self.data, "save": "", "daemonize": "no",
                    "enable-debug-command": "yes", "appendonly": "no"} | settings
        words = [servers.tool("redis-server")]
        for name, value in settings.items():
            words += [f"--{name.replace('_', '-')}", value]
        self.server = place.start(words, "redis-server")
        self.server.ready(servers.accepts(self.port))
        until(lambda: "LOADING" not in self.cli("PING"), "redis loaded")

    def cli(self, *words, **more):
        return self.place.run([servers.tool("redis-cli"), "-p", self.port, *words], **more).strip()

    def info(self, field):
        return re.search(rf"^{field}:(.*?)\r?$", self.cli("INFO"), re.M)[1]

    def benchmark(self, *words):
        return [servers.tool("redis-benchmark"), "-p", str(self.port), "-q", *map(str, words)]

    def measure(self, name, *words):
        out = self.place.run(self.benchmark(*words), patience=3 * servers.PATIENCE).replace("\r", "\n")
        rates = re.findall(r"^([A-Z_]+)[^:\n]*: ([0-9.]+) requests per second", out, re.M)
        check(rates, "redis-benchmark said", out)
        for command, rate in rates:
            self.place.figure(f"{command} {name}", float(rate), "/s")
        return len(rates)

    def snapshot(self, command="BGSAVE", running="rdb_bgsave_in_progress"):
        """Waits for the child that writes it."""
        self.cli(command)
        until(lambda: self.info(running) == "0", command)
        status = self.info("rdb_last_bgsave_status" if command == "BGSAVE" else "aof_last_bgrewrite_status")
        check(status == "ok", f"{command}: {status}; the log ends with", self.server.text()[-1500:])

    def state(self):
        return self.cli("DEBUG", "DIGEST"), self.cli("DBSIZE")

    def shutdown(self, *how):
        # The connection ends without an answer.
        subprocess.run([servers.tool("redis-cli"), "-p", str(self.port), "SHUTDOWN", *how],
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=servers.PATIENCE)
        return self.server.ended()


def natively(place, directory, **settings):
    """The same data in a server outside of any cell."""
    outside = servers.Place("outside", [], place.directory)
    try:
        redis = Redis(outside, directory, **settings)
        state = redis.state()
        check(redis.shutdown("NOSAVE") == 0, "the native server ended badly")
        return state
    finally:
        outside.end()


class Load:
    """redis-benchmark in a loop of its own until the end of the block."""

    def __init__(self, redis, *words):
        self.process = subprocess.Popen(redis.benchmark("-l", *words), stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        ended_early = self.process.poll()
        self.process.kill()
        errors = self.process.communicate()[1]
        check(ended_early is None, "redis-benchmark ended under way:", errors)


def commands(place):
    redis = Redis(place)
    # This client is in a cell, too.
    yield from place.run([*place.prefix, servers.tool("redis-cli"), "-p", redis.port, "--no-raw"], stdin=None,
                         input=COMMANDS).splitlines()
    many = "".join(f"SET k{i} {'v' * (i % 500 + 1)}\r\n" for i in range(5000))
    yield redis.cli("--pipe", stdin=None, input=many)
    large = "0123456789abcdef" * (10 << 16)
    redis.cli("-x", "SET", "large", stdin=None, input=large)
    yield redis.cli("GET", "large") == large
    yield redis.state()
    yield redis.shutdown("NOSAVE")


def throughput(place):
    redis = Redis(place)
    before, began = int(redis.info("total_commands_processed")), servers.processor_time(redis.server.pid)
    redis.measure("-c 20", "-n", REQUESTS, "-c", 20, "-t", "set,get,incr,lpush,mset")
    redis.measure("-c 20 -P 16", "-n", REQUESTS * 5, "-c", 20, "-P", 16, "-t", "set,get")
    redis.measure("-c 200 -d 1000", "-n", REQUESTS // 2, "-c", 200, "-d", 1000, "-r", KEYS, "-t", "set,get")
    commands = int(redis.info("total_commands_processed")) - before
    # What a busy machine does not change.
    place.figure("processor time a command", (servers.processor_time(redis.server.pid) - began) / commands * 1e6, "us")
    place.note_resident(redis.server.pid)
    yield redis.cli("GET", "counter:__rand_int__")
    yield redis.shutdown("NOSAVE")
    if place.prefix:
        place.figure("exits a command", redis.server.exits() / commands)


def snapshots(place):
    redis = Redis(place)
    place.run(redis.benchmark("-n", KEYS, "-r", KEYS, "-d", 200, "-t", "set"))
    # Readers do not change what is saved.
    state = redis.state()
    with Load(redis, "-n", REQUESTS, "-c", 20, "-r", KEYS, "-t", "get"):
        for _ in range(SNAPSHOTS):
            redis.snapshot()
    yield natively(place, "data") == state
    # Each key counts how often it was written: a snapshot in the middle has a prefix of it.
    with Load(redis, "-n", REQUESTS, "-c", 20, "-r", KEYS, "-d", 300, "-t", "set,incr,lpush,mset"):
        for _ in range(SNAPSHOTS):
            redis.snapshot()
            place.run([servers.tool("redis-check-rdb"), redis.data / "dump.rdb"])
    until(lambda: redis.info("connected_clients") == "1", "clients gone")
    state = redis.state()
    yield redis.shutdown("SAVE")
    yield natively(place, "data") == state


def append_only(place):
    settings = {"appendonly": "yes", "appendfsync": "everysec"}
    redis = Redis(place, "aof", **settings)
    with Load(redis, "-n", REQUESTS, "-c", 20, "-r", KEYS, "-t", "set,incr,lpush"):
        redis.snapshot("BGREWRITEAOF", "aof_rewrite_in_progress")
        redis.snapshot("BGREWRITEAOF", "aof_rewrite_in_progress")
    until(lambda: redis.info("connected_clients") == "1", "clients gone")
    state = redis.state()
    yield redis.shutdown()
    redis = Redis(place, "aof", **settings)
    yield redis.state() == state
    yield redis.shutdown()
    yield natively(place, "aof", **settings) == state


def killed(place):
    """What was acknowledged with fsync is there after kill -9, also when a child is just writing."""
    settings = {"appendonly": "yes", "appendfsync": "always"}
    acknowledged = 0
    for busy in (False, True):
        redis = Redis(place, "killed", **settings)
        check(int(redis.cli("GET", "count") or 0) >= acknowledged, "acknowledged increments are lost")
        if busy:
            redis.cli("BGREWRITEAOF")
        client = subprocess.Popen([servers.tool("redis-cli"), "-p", str(redis.port), "-r", "1000000", "INCR", "count"],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                                  text=True)
        answers = []
        for line in client.stdout:
            answers.append(line)
            if len(answers) == 500:
                redis.server.kill()
        client.wait()
        acknowledged = max(int(line) for line in answers if line.strip().isdigit())
        check(acknowledged >= 500, "only", acknowledged, "increments")
        yield redis.server.ended()
    redis = Redis(place, "killed", **settings)
    check(int(redis.cli("GET", "count")) >= acknowledged, "acknowledged increments are lost")
    yield redis.shutdown()


def signals_during_fork(place):
    """redis handles SIGALRM once it has a watchdog: it writes a trace to its log."""
    redis = Redis(place)
    place.run(redis.benchmark("-n", KEYS, "-r", KEYS, "-d", 100, "-t", "set"))
    redis.cli("CONFIG", "SET", "watchdog-period", 100000)
    over = threading.Event()

    def storm():
        for _ in itertools.takewhile(lambda _: not over.is_set(), itertools.count()):
            os.kill(redis.server.pid, signal.SIGALRM)
            over.wait(0.0005)

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        for _ in range(SNAPSHOTS * 3):
            redis.snapshot()
    finally:
        over.set()
        thread.join()
    check("STACK TRACE" in redis.server.text(), "the handler did not run")
    state = redis.state()
    yield redis.shutdown("SAVE")
    yield natively(place, "data") == state


def scenario(place):
    parts = (commands, throughput, snapshots, append_only, killed, signals_during_fork)
    wanted = os.environ.get("XOS_PARTS", "").split()
    for part in [p for p in parts if p.__name__ in wanted or not wanted]:
        try:
            for seen in part(place):
                yield f"{part.__name__}: {seen}"
        except (Failed, subprocess.SubprocessError) as e:
            raise Failed(f"{part.__name__}: {e}") from e
        finally:
            place.end()


if __name__ == "__main__":
    servers.main(scenario)
