#!/usr/bin/env python3
"""nginx with two workers: files byte for byte, reloads and log rotations under wrk, all ways to end it.

    nginx_server.py [--run-option=OPTION]... XOS
"""

import hashlib
import http.client
import os
import random
import re
import signal
import socket
import subprocess

import servers
from servers import SOAK, check, until

SECONDS = 30 if SOAK else 4
RELOADS = 10 if SOAK else 2

CONFIGURATION = """
worker_processes 2;
daemon off;
{user}
pid {T}/nginx.pid;
error_log {T}/error.log notice;
events {{ worker_connections 512; }}
http {{
    types {{ text/html html; text/plain txt; }}
    access_log {T}/access.log;
    client_body_temp_path {T}/body; proxy_temp_path {T}/proxy;
    fastcgi_temp_path {T}/fastcgi; uwsgi_temp_path {T}/uwsgi; scgi_temp_path {T}/scgi;
    sendfile on; tcp_nopush on; keepalive_requests 1000;
    server {{
        listen 127.0.0.1:{port};
        root {T}/www;
        location /copied/ {{ sendfile off; alias {T}/www/; output_buffers 2 64k; }}
        location /zipped/ {{ gzip on; gzip_types text/plain; alias {T}/www/; }}
        location /relayed/ {{ proxy_pass http://127.0.0.1:{port}/; }}
        location /said {{ return 200 "said"; }}
        location /moved {{ return 301 /said; }}
    }}
}}
"""

SIZES = (0, 1, 4095, 4096, 65537, 10 << 20)


def make_files(www):
    www.mkdir()
    for size in SIZES:
        chance = random.Random(size)
        # Half of it compresses.
        content = chance.randbytes(size // 2) + b"nginx" * size
        path = www / f"{size}.txt"
        path.write_bytes(content[:size])
        os.utime(path, (1e9, 1e9))


class Nginx:
    def __init__(self, place):
        self.place, self.directory = place, place.directory
        self.port = servers.free_port()
        configuration = self.directory / "nginx.conf"
        # As root it gives its workers away.
        user = "user nobody nogroup;" if os.geteuid() == 0 else ""
        configuration.write_text(CONFIGURATION.format(T=self.directory, port=self.port, user=user))
        self.server = place.start([servers.tool("nginx"), "-e", "stderr", "-p", self.directory, "-c", configuration],
                                  "nginx")
        self.server.ready(servers.accepts(self.port))
        until(lambda: len(self.workers()) == 2, "two workers")

    def workers(self):
        return servers.children_of(self.server.pid)

    def ask(self, path, method="GET", connection=None, **headers):
        c = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=servers.PATIENCE)
        c.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = c.getresponse()
        body = answer.read()
        kept = sorted((k, v) for k, v in answer.getheaders() if k not in ("Date", "Location"))
        return answer.status, kept, len(body), hashlib.sha256(body).hexdigest()[:16]

    def signal(self, number):
        self.server.kill(number)

    def wrk(self, path, seconds, *words):
        return [servers.tool("wrk"), "-t", "2", "-c", "20", "-d", f"{seconds}s", *words,
                f"http://127.0.0.1:{self.port}{path}"]

    def reload(self):
        old = set(self.workers())
        self.signal(signal.SIGHUP)
        until(lambda: len(now := set(self.workers())) == 2 and not now & old, "new workers")


def requests_of(output):
    check("Socket errors" not in output and "Non-2xx" not in output, "failed requests:", output)
    return int(re.search(r"(\d+) requests in", output)[1])


def files(nginx):
    keep = http.client.HTTPConnection("127.0.0.1", nginx.port, timeout=servers.PATIENCE)
    for size in SIZES:
        for prefix in ("", "/copied", "/zipped", "/relayed"):
            yield nginx.ask(f"{prefix}/{size}.txt", connection=keep)
        for where in ("", "/copied"):
            answer = nginx.ask(f"{where}/{size}.txt", Accept_Encoding="identity")
            content = (nginx.directory / "www" / f"{size}.txt").read_bytes()
            check(answer[0] == 200 and answer[3] == hashlib.sha256(content).hexdigest()[:16], where, size, "differs")
    yield nginx.ask("/zipped/65537.txt", Accept_Encoding="gzip")
    yield nginx.ask("/65537.txt", Range="bytes=100-60000")
    yield nginx.ask("/65537.txt", Range="bytes=0-0,65530-")[:1]
    yield nginx.ask("/65537.txt", Range="bytes=70000-")
    yield nginx.ask("/4096.txt", If_Modified_Since="Sun, 09 Sep 2001 01:46:40 GMT")
    yield nginx.ask("/4096.txt", method="HEAD")
    yield nginx.ask("/none"), nginx.ask("/said"), nginx.ask("/moved"), nginx.ask("/4096.txt", method="DELETE")
    with socket.create_connection(("127.0.0.1", nginx.port)) as s:
        s.sendall(b"nonsense\r\n\r\n")
        yield re.sub(rb"Date: [^\r]*", b"", s.makefile("rb").read())


def throughput(nginx):
    place = nginx.place
    total = 0
    for name, path, words in (("1 B, kept alive", "/1.txt", ()), ("64 KiB, kept alive", "/65537.txt", ()),
                              ("1 B, connection each", "/1.txt", ("-H", "Connection: close"))):
        done = place.run(nginx.wrk(path, max(2, SECONDS // 4), *words), patience=SECONDS + servers.PATIENCE)
        total += requests_of(done)
        place.figure(name, float(re.search(r"Requests/sec: +([0-9.]+)", done)[1]), "/s")
    place.note_resident(nginx.server.pid, "resident, master")
    place.note_resident(nginx.workers()[0], "resident, worker")
    return total


def reloads_under_load(nginx):
    # A connection for each request: one that is kept may be closed by the server just as the client uses it again.
    log = nginx.directory / "access.log"
    lines = lambda path: path.read_bytes().count(b"\n")
    wrk = subprocess.Popen(nginx.wrk("/4096.txt", SECONDS, "-H", "Connection: close"), stdout=subprocess.PIPE,
                           stdin=subprocess.DEVNULL, text=True)
    rotated = []
    for n in range(RELOADS):
        before = lines(log)
        until(lambda: lines(log) > before + 100 or wrk.poll() is not None, "requests")
        check(wrk.poll() is None, "wrk ended before the reloads did")
        nginx.reload()
        rotated.append(log.rename(nginx.directory / f"access.{n}"))
        nginx.signal(signal.SIGUSR1)
        until(lambda: log.exists() and lines(log) > 10, "lines in the new log")
    requests = requests_of(wrk.communicate(timeout=SECONDS + servers.PATIENCE)[0])
    for path in [*rotated, log]:
        for line in path.read_text().splitlines():
            check(re.fullmatch(r'127\.0\.0\.1 - - \[[^]]*\] "[^"]*" \d+ \d+ "-" "[^"]*"', line), "a log has", line)
    logged = sum(path.read_text().count('"GET /4096.txt HTTP/1.1" 200 4096') for path in [*rotated, log])
    check(logged >= requests, "wrk counts", requests, "requests, the logs have", logged)
    return requests


def graceful_end(nginx):
    """Who is being served is served to the end."""
    s = socket.create_connection(("127.0.0.1", nginx.port))
    s.settimeout(servers.PATIENCE)
    s.sendall(b"GET /10485760.txt HTTP/1.0\r\n\r\n")
    answer = s.recv(1000)
    nginx.signal(signal.SIGQUIT)
    def refused():
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", nginx.port)) != 0
    until(refused, "no listener")
    while piece := s.recv(1 << 20):
        answer += piece
    content = (nginx.directory / "www" / "10485760.txt").read_bytes()
    yield answer.split(b"\r\n\r\n", 1)[1] == content
    yield nginx.server.ended()


def kills(place):
    """A worker is replaced; workers without a master go on; nobody waits for the dead."""
    nginx = Nginx(place)
    load = subprocess.Popen(nginx.wrk("/4096.txt", 60), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    for _ in range(20 if SOAK else 3):
        victim = nginx.workers()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: len(now := nginx.workers()) == 2 and victim not in now, "another worker")
    yield nginx.ask("/4096.txt")
    workers = nginx.workers()
    nginx.server.kill()
    yield nginx.server.ended()
    yield nginx.ask("/4096.txt")
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    load.kill()
    load.wait()


def scenario(place):
    make_files(place.directory / "www")
    nginx = Nginx(place)
    yield from files(nginx)
    requests = throughput(nginx)
    requests += reloads_under_load(nginx)
    yield from graceful_end(nginx)
    if place.prefix:
        place.figure("exits a request", nginx.server.exits() / requests)
    errors = (place.directory / "error.log").read_text()
    yield sorted(set(re.findall(r"\[(?:emerg|alert|crit)\].*", errors)))
    yield from kills(place)


if __name__ == "__main__":
    servers.main(scenario)
