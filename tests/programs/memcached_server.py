#!/usr/bin/env python3
"""memcached with four threads and several clients at once; each compares the answers with a model.

    memcached_server.py [--run-option=OPTION]... XOS
"""

import os
import pwd
import random
import signal
import socket
import threading
import time

import servers
from servers import SOAK, check

CLIENTS = 8
OPERATIONS = int(os.environ.get("XOS_REQUESTS", 40000 if SOAK else 4000)) // CLIENTS
LARGE = 100 << 10


class Client:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), servers.PATIENCE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def send(self, *lines):
        self.socket.sendall(b"".join(line + b"\r\n" for line in lines))

    def line(self):
        answer = self.file.readline()
        if not answer.endswith(b"\r\n"):
            raise EOFError("the server closed a connection")
        return answer[:-2]

    def values(self):
        """Until END: what a get of any number of keys is answered with."""
        found = {}
        while (line := self.line()) != b"END":
            word, key, flags, size, *_ = line.split()
            check(word == b"VALUE", "instead of a value:", line[:100])
            found[key] = self.file.read(int(size)), int(flags)
            check(self.file.read(2) == b"\r\n", "a value does not end where it should")
        return found

    def command(self, *lines):
        self.send(*lines)
        return self.line()

    def get(self, *keys):
        self.send(b"get " + b" ".join(keys))
        return self.values()

    def statistics(self):
        self.send(b"stats")
        found = {}
        while (line := self.line()) != b"END":
            _, name, value = line.split(b" ", 2)
            found[name.decode()] = value.decode()
        return found


def value_of(chance, large):
    size = LARGE - chance.randrange(50) if large else chance.randrange(300)
    return chance.randbytes(size)


def against_model(port, number, seen):
    """One client with keys of its own: whatever it is answered must be what the model says."""
    chance = random.Random(number)
    client, model, numbers = Client(port), {}, {}
    name = lambda i: b"c%d.%d" % (number, i)
    for i in range(OPERATIONS):
        key = name(chance.randrange(40))
        what = chance.choice(("set", "get", "multi", "add", "delete", "append", "incr", "large", "cas"))
        if what in ("set", "large"):
            value, flags = value_of(chance, what == "large" and i % 5 == 0), chance.randrange(1 << 16)
            answer = client.command(b"set %s %d 0 %d" % (key, flags, len(value)), value)
            check(answer == b"STORED", "set:", answer)
            model[key] = value, flags
        elif what == "get":
            check(client.get(key) == ({key: model[key]} if key in model else {}), "get", key)
        elif what == "multi":
            keys = [name(k) for k in range(40)]
            check(client.get(*keys) == {k: model[k] for k in keys if k in model}, "get of many")
        elif what == "add":
            answer = client.command(b"add %s 7 0 3" % key, b"new")
            check(answer == (b"NOT_STORED" if key in model else b"STORED"), "add:", answer)
            model.setdefault(key, (b"new", 7))
        elif what == "delete":
            answer = client.command(b"delete " + key)
            check(answer == (b"DELETED" if model.pop(key, None) else b"NOT_FOUND"), "delete:", answer)
        elif what == "append":
            if key in model and len(model[key][0]) > 500000:
                continue
            answer = client.command(b"append %s 0 0 4" % key, b"tail")
            check(answer == (b"STORED" if key in model else b"NOT_STORED"), "append:", answer)
            if key in model:
                model[key] = model[key][0] + b"tail", model[key][1]
        elif what == "incr":
            counter = b"n" + key
            answer = client.command(b"incr %s 3" % counter)
            if counter in numbers:
                numbers[counter] += 3
                check(answer == b"%d" % numbers[counter], "incr:", answer)
            else:
                check(answer == b"NOT_FOUND", "incr:", answer)
                numbers[counter] = 10
                check(client.command(b"set %s 0 0 2" % counter, b"10") == b"STORED", "set of a counter")
        elif what == "cas" and key in model:
            client.send(b"gets " + key)
            unique = client.line().split()[-1]
            client.file.read(len(model[key][0]) + 2)
            check(client.line() == b"END", "gets")
            check(client.command(b"cas %s 1 0 2 %s" % (key, unique), b"ok") == b"STORED", "cas")
            check(client.command(b"cas %s 1 0 2 %s" % (key, unique), b"no") == b"EXISTS", "second cas")
            model[key] = b"ok", 1
    seen[number] = len(model), len(numbers)


def in_parallel(work, *arguments):
    failures = []

    def guarded(number):
        try:
            work(*arguments, number)
        except Exception as e:
            failures.append(e)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(CLIENTS)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failures:
        raise failures[0]


def one_by_one(port):
    """The text protocol's answers, also to nonsense."""
    client = Client(port)
    for lines in ((b"version",), (b"set a 0 0 1", b"1"), (b"incr a 41",), (b"decr a 50",), (b"incr a x",),
                  (b"touch a 100",), (b"prepend a 0 0 2", b"ab"), (b"delete none",), (b"replace none 0 0 1", b"x"),
                  (b"nonsense",), (b"set too-large 0 0 2000000", bytes(2000000)), (b"verbosity 0",), (b"flush_all",)):
        yield lines[0], client.command(*lines)
    client = Client(port)
    yield client.command(b"set " + b"k" * 251 + b" 0 0 1", b"x")


def count_up(port, rounds, number):
    client = Client(port)
    for _ in range(rounds):
        client.command(b"incr shared 1")


def set_and_get(port, batch, number):
    """Batches of requests in one piece, so that the server finds many at once."""
    client = Client(port)
    for i in range(OPERATIONS * 4 // batch):
        keys = [b"t%d.%d" % (number, k) for k in range(i * batch, i * batch + batch)]
        client.send(*[b"set %s 0 0 32\r\n%s" % (k, b"v" * 32) for k in keys])
        check(all([client.line() == b"STORED" for _ in keys]), "a set failed")
        client.send(*[b"get " + k for k in keys])
        for k in keys:
            check(client.values() == {k: (b"v" * 32, 0)}, "a get failed")


def scenario(place):
    port = servers.free_port()
    user = "nobody" if any(u.pw_name == "nobody" for u in pwd.getpwall()) else "root"
    server = place.start([servers.tool("memcached"), "-t", 4, "-p", port, "-l", "127.0.0.1", "-U", 0, "-m", 256,
                          "-u", user, "-c", 100], "memcached")
    server.ready(servers.accepts(port))
    yield from one_by_one(port)

    seen = {}
    in_parallel(lambda p, n: against_model(p, n, seen), port)
    yield sorted(seen.items())

    client = Client(port)
    client.command(b"set shared 0 0 1", b"0")
    in_parallel(count_up, port, OPERATIONS)
    yield client.get(b"shared")

    before, started = client.statistics(), servers.processor_time(server.pid)
    for batch in (1, 16):
        began = time.monotonic()
        in_parallel(set_and_get, port, batch)
        operations = OPERATIONS * 4 // batch * batch * 2 * CLIENTS
        place.figure(f"set, get, {CLIENTS} clients, batch {batch}", operations / (time.monotonic() - began), "/s")
    after, spent = client.statistics(), servers.processor_time(server.pid) - started
    yield [after[name] for name in ("threads", "max_connections", "evictions", "curr_items", "bytes", "total_items",
                                    "cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "get_hits", "get_misses",
                                    "delete_hits", "delete_misses", "incr_hits", "incr_misses", "cas_badval")]
    requests = sum(int(after[n]) for n in ("cmd_get", "cmd_set", "incr_hits", "delete_hits"))
    commands = sum(int(after[n]) - int(before[n]) for n in ("cmd_get", "cmd_set"))
    place.figure("processor time a command", spent / commands * 1e6, "us")
    place.note_resident(server.pid)

    server.kill(signal.SIGTERM)
    yield server.ended()
    if place.prefix:
        place.figure("exits a command", server.exits() / requests)

    # Killed under load, it leaves nothing behind.
    for _ in range(10 if SOAK else 2):
        port = servers.free_port()
        server = place.start([servers.tool("memcached"), "-t", 4, "-p", port, "-l", "127.0.0.1", "-U", 0, "-u", user],
                             "memcached")
        server.ready(servers.accepts(port))
        threads = [threading.Thread(target=until_closed, args=(port,)) for _ in range(CLIENTS)]
        for t in threads:
            t.start()
        servers.until(lambda: int(Client(port).statistics()["cmd_set"]) > 200, "load")
        server.kill()
        for t in threads:
            t.join()
        yield server.ended()


def until_closed(port):
    try:
        client = Client(port)
        while True:
            client.command(b"set %d 0 0 1000" % random.randrange(1000), b"x" * 1000)
    except (OSError, EOFError):
        pass


if __name__ == "__main__":
    servers.main(scenario)
