#!/usr/bin/env python3
"""PostgreSQL: initdb, SQL, pgbench, kill -9 of backends and of all of it under load, recovery: no row lost.

    postgresql_server.py [--run-option=OPTION]... XOS
"""

import glob
import os
import pwd
import re
import signal
import subprocess
import threading

import servers
from servers import SOAK, check, until

SECONDS = 60 if SOAK else 3
KILLS = 10 if SOAK else 2
WRITERS = 4

QUERIES = r"""
create table t (id serial primary key, v numeric, s text, j jsonb, a int[]);
insert into t (v, s, j, a) select sqrt(i), md5(i::text), jsonb_build_object('n', i, 'odd', i % 2 = 1), array[i, i * i]
  from generate_series(1, 20000) i;
create index on t (s); create index on t using gin (j); analyze t;
select count(*), round(sum(v), 6), max(s), min(a[2]) from t;
select j->>'odd', count(*), percentile_cont(0.5) within group (order by v)::numeric(10, 4) from t group by 1 order by 1;
select id, s from (select *, row_number() over (partition by id % 100 order by s desc) r from t) x
  where r = 1 order by id limit 5;
with recursive f(a, b) as (select 0::numeric, 1::numeric union all select b, a + b from f where b < 1e60)
  select max(b) from f;
set max_parallel_workers_per_gather = 2; set parallel_setup_cost = 0; set parallel_tuple_cost = 0;
set min_parallel_table_scan_size = 0; set force_parallel_mode = on;
select count(*), sum(length(x.s)) from t x join t y on x.id = y.a[1];
reset all;
set work_mem = '64kB';
select md5(string_agg(s, ',' order by s)) from t;
reset all;
create function failing(n int) returns text language plpgsql as $$
begin
  return (10 / n)::text;
exception when division_by_zero then return 'caught ' || sqlerrm;
end $$;
select failing(0), failing(3);
select 1 / 0;
set statement_timeout = 100; select pg_sleep(100); reset statement_timeout;
begin; lock table t; savepoint a; delete from t where id < 100; rollback to a; select count(*) from t; commit;
copy (select * from t order by id limit 3) to stdout;
select count(*) from regexp_matches(repeat('ab12', 5000), '\d+', 'g');
listen here; notify here, 'payload';
vacuum full t; reindex table t;
select count(*), sum(hashtext(s)) from t;
select to_tsvector('english', 'The quick brown foxes') @@ to_tsquery('fox');
create temp table tt as select * from t; update tt set v = v + 1; select round(sum(v), 6) from tt;
checkpoint;
"""


def program(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    return found[-1] if found else servers.tool(name)


def as_postgres():
    """It refuses to be root. Where only root may open /dev/kvm, its user gets the capability to."""
    if os.geteuid() != 0:
        return []
    words = [servers.tool("setpriv"), "--reuid=postgres", "--regid=postgres", "--init-groups"]
    may = subprocess.run([*words, "test", "-w", "/dev/kvm"], stdin=subprocess.DEVNULL).returncode == 0
    if not may:
        words += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return words


class Database:
    def __init__(self, place):
        self.place = place
        self.before = as_postgres()
        self.home = place.directory / "home"
        self.home.mkdir()
        if self.before:
            user = pwd.getpwnam("postgres")
            os.chown(self.home, user.pw_uid, user.pw_gid)
        self.data = self.home / "data"
        self.postmaster = None

    def words(self, name, *words):
        return [program(name), *map(str, words)]

    def client(self, name, *words, under=()):
        return [*self.before, *under, *self.words(name, "-h", self.home, "-U", "postgres", *words)]

    def start(self, place=None):
        self.postmaster = (place or self.place).start(
            self.words("postgres", "-D", self.data, "-k", self.home, "-c", "listen_addresses=", "-c",
                       "max_connections=50", "-c", "shared_buffers=32MB", "-c", "checkpoint_timeout=30s", "-c",
                       "log_min_messages=warning"),
            "postgres", before=self.before)
        self.postmaster.ready(self.answers)

    def answers(self):
        return subprocess.run(self.client("pg_isready"), stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL).returncode == 0

    def sql(self, text):
        return self.place.run(self.client("psql", "-X", "-A", "-t", "-q", "-c", text, "postgres")).strip()

    def backends(self):
        rows = self.sql("select pid from pg_stat_activity where backend_type = 'client backend' "
                        "and pid <> pg_backend_pid()")
        return [int(row) for row in rows.split()]

    def pgbench(self, *words):
        return self.place.run(self.client("pgbench", "-n", *words, "postgres"), patience=SECONDS + servers.PATIENCE)

    def stop(self, number=signal.SIGINT):
        self.postmaster.kill(number)
        return self.postmaster.ended()


class Writer(threading.Thread):
    """Commits rows one by one and remembers which ones it was told are there."""

    def __init__(self, database, number):
        super().__init__()
        self.database, self.number = database, number
        self.acknowledged = self.next = 0
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set():
            psql = subprocess.Popen(self.database.client("psql", "-X", "-A", "-t", "-q", "postgres"),
                                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                    bufsize=1)
            try:
                while not self.over.is_set():
                    psql.stdin.write(f"insert into rows values ({self.number}, {self.next}) returning n;\n")
                    self.next += 1
                    line = psql.stdout.readline()
                    if line.strip() != str(self.next - 1):
                        break
                    self.acknowledged += 1
                    with self.database.lock:
                        self.database.told.add((self.number, self.next - 1))
            except OSError:
                pass
            finally:
                psql.kill()
                psql.communicate()


def consistent(database):
    """What pgbench's transactions keep true."""
    total = lambda what, table: f"(select coalesce(sum({what}), 0) from pgbench_{table})"
    sums = [total("abalance", "accounts"), total("tbalance", "tellers"), total("bbalance", "branches"),
            total("delta", "history")]
    return database.sql("select " + " and ".join(f"{sums[0]} = {other}" for other in sums[1:]))


def check_rows(database):
    there = {tuple(map(int, row.split("|"))) for row in database.sql("select w, n from rows").split()}
    lost = database.told - there
    check(not lost, len(lost), "acknowledged rows are lost, such as", sorted(lost)[:3])


def load(database):
    place = database.place
    yield re.sub(r"done in .*", "done", database.pgbench("-i", "-s", 1))
    for name, words in (("pgbench, 4 clients", ("-c", 4, "-j", 2)),
                        ("pgbench -S, 4 clients", ("-c", 4, "-j", 2, "-S", "-M", "prepared"))):
        out = database.pgbench("-T", SECONDS, *words)
        failed = re.search(r"number of failed transactions: (\d+)", out)[1]
        place.figure(name, float(re.search(r"tps = ([0-9.]+)", out)[1]), "/s")
        yield name, failed
    place.note_resident(database.postmaster.pid, "resident, postmaster")
    yield consistent(database)


def kills(database):
    database.lock, database.told = threading.Lock(), set()
    database.sql("create table rows (w int, n int, primary key (w, n))")
    writers = [Writer(database, n) for n in range(WRITERS)]
    for w in writers:
        w.start()
    try:
        for kill in range(KILLS * 2):
            target = len(database.told) + 150
            until(lambda: len(database.told) > target, "writers under way")
            if kill % 2 == 0:
                # The postmaster ends all others and recovers by itself.
                victim = until(lambda: database.answers() and database.backends(), "a backend")[0]
                os.kill(victim, signal.SIGKILL)
                until(lambda: not os.path.exists(f"/proc/{victim}"), "the backend's end")
            else:
                # Whoever is left notices that the postmaster is gone.
                everyone = servers.descendants(database.postmaster.pid)
                database.postmaster.kill()
                yield database.postmaster.ended()
                until(lambda: not any(alive(p) for p in everyone), "the end of the others")
                database.start()
            until(database.answers, "recovery")
    finally:
        for w in writers:
            w.over.set()
        for w in writers:
            w.join()
    check_rows(database)
    yield "every acknowledged row is there"


def alive(pid):
    """Not a zombie: whoever lost its parent waits for this process."""
    return "(" in (state := servers.described(pid)) and "zombie" not in state


def scenario(place):
    database = Database(place)
    initdb = place.start(database.words("initdb", "-D", database.data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                                        "--locale=C", "--no-instructions"),
                         "initdb", before=database.before)
    yield initdb.ended(3 * servers.PATIENCE)  # some thousand files are synchronised
    yield from initdb.text().splitlines()

    database.start()
    # This client is in a cell, too.
    psql = database.client("psql", "-X", "-a", "postgres", under=place.prefix)
    done = subprocess.run(psql, input=QUERIES, text=True, capture_output=True, timeout=servers.PATIENCE)
    # A notification tells the process that sent it.
    yield from re.sub(r"PID \d+", "PID", done.stdout + done.stderr).splitlines()
    yield done.returncode
    yield from load(database)
    yield from kills(database)
    yield consistent(database)
    rows = database.sql("select count(*) from rows")
    yield database.stop()
    log = database.postmaster.text()
    if place.prefix:
        place.figure("exits since the last start", database.postmaster.exits())
        outside = servers.Place("outside", [], place.directory)
        try:
            database.start(outside)
            check_rows(database)
            check(database.sql("select count(*) from rows") == rows, "other rows natively")
            yield database.stop(signal.SIGTERM)
        finally:
            outside.end()
    else:
        database.start()
        yield database.stop(signal.SIGTERM)
    check("PANIC" not in log, log[-2000:])


if __name__ == "__main__":
    servers.main(scenario)
