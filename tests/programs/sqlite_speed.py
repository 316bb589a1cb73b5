#!/usr/bin/env python3
"""sqlite3: the work of a database speed test, in memory, in a file, and with a write-ahead log.

    sqlite_speed.py [--run-option=OPTION]... XOS
"""

import os
import signal
import subprocess
import time

import servers
from servers import SOAK, check

ROWS = int(os.environ.get("XOS_ROWS", 200000 if SOAK else 20000))
TRANSACTIONS = ROWS // 100


def series(n):
    return f"with recursive c(i) as (select 1 union all select i + 1 from c where i < {n})"


def number(expression):
    """A number that looks random and is the same everywhere."""
    return f"(({expression}) * 1103515245 + 12345) % 2147483648"


# One step a measure: inserts with and without indexes, ranges, joins, updates, deletes, text, integrity.
STEPS = f"""
create table plain (a integer, b integer, c text);
insert into plain {series(ROWS)} select i, {number('i')}, printf('%d %s', {number('i')}, hex(i)) from c;
create table keyed (a integer primary key, b integer unique, c text);
insert into keyed {series(ROWS)} select {number('i')}, i, printf('%.20c', char(97 + i % 26)) from c where 1;
select count(*), avg(b), sum(length(c)) from plain where b between 100000000 and 600000000;
select count(*), sum(length(c)) from plain where c like '%77%';
create index plain_b on plain (b); create index plain_c on plain (c);
{series(2000)} select sum((select count(*) from plain where b between i * 1000000 and i * 1000000 + 500000)) from c;
select sum(k.b % 7), count(*) from plain p join keyed k on k.b = p.a;
update plain set b = b * 2 where a % 3 = 0;
update keyed set c = c || a where b % 5 = 0;
insert into plain select * from plain where a % 4 = 0;
select c, b from plain order by c desc limit 7 offset 1000;
select b % 10, count(*), max(c), total(a) from plain group by 1 order by 1;
delete from plain where b % 7 = 1; delete from keyed where a between 1000000 and 500000000;
select sum(n) over (order by n) from (select count(*) n from plain group by a % 11) limit 11;
create virtual table words using fts5 (t);
insert into words {series(ROWS // 20)} select printf('w%d w%d w%d', i % 100, i % 77, i % 13) from c;
select count(*) from words where words match 'w5 AND w7';
select json_group_array(x) from (select json_extract(json_object('a', a, 'b', c), '$.b') x from plain limit 5);
pragma integrity_check;
vacuum;
select count(*), sum(a), sum(b), sum(length(c)) from plain;
"""

SMALL = "insert into small values (%d, hex(randomblob(20)));\n"


def sqlite(place, name, text, *words):
    began = time.monotonic()
    done = subprocess.run([*place.prefix, servers.tool("sqlite3"), *words], input=text, text=True, capture_output=True,
                          cwd=place.directory, timeout=servers.PATIENCE * 5)
    place.figure(name, time.monotonic() - began, "s")
    return [*done.stdout.splitlines(), *done.stderr.splitlines(), done.returncode]


def killed(place):
    """Of what a killed one had committed, everything is there."""
    create = "create table small (n integer primary key, t text); pragma journal_mode=wal; pragma synchronous=full;\n"
    sqlite(place, "", create, "killed.db")
    process = subprocess.Popen([*place.prefix, servers.tool("sqlite3"), "killed.db"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=place.directory)
    process.stdin.write("pragma synchronous=full;\n")
    committed = 0
    for n in range(TRANSACTIONS):
        process.stdin.write(SMALL % n + f"select {n};\n")
        process.stdin.flush()
        check(process.stdout.readline().strip() == str(n), "sqlite3 ended early")
        committed = n
        if n == TRANSACTIONS // 2:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    there = subprocess.run([servers.tool("sqlite3"), "killed.db", "select max(n) from small; pragma integrity_check;"],
                           capture_output=True, text=True, cwd=place.directory).stdout.split()
    check(int(there[0]) >= committed, "committed", committed, "but there is", there)
    return there[1:], process.returncode


def scenario(place):
    yield from sqlite(place, "in memory", STEPS, ":memory:")
    yield from sqlite(place, "file", STEPS, "file.db")
    yield from sqlite(place, "file, write-ahead log", "pragma journal_mode=wal;\n" + STEPS, "wal.db")
    yield from sqlite(place, "file, mapped", "pragma mmap_size=268435456;\n" + STEPS, "mapped.db")
    small = "create table small (n integer primary key, t text);\n" \
        + "".join(SMALL % n for n in range(TRANSACTIONS)) + "select count(*), sum(n), max(length(t)) from small;\n"
    yield from sqlite(place, f"{TRANSACTIONS} transactions", small, "small.db")
    yield from sqlite(place, f"{TRANSACTIONS} transactions, log", "pragma journal_mode=wal;\n" + small, "small-wal.db")
    # Two writers at once, each waiting for the other's lock.
    writers = [subprocess.Popen([*place.prefix, servers.tool("sqlite3"), "small.db"], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=place.directory)
               for _ in range(2)]
    for w, process in enumerate(writers):
        process.stdin.write(".timeout 60000\n" + "".join(
            f"insert into small values ({(w + 1) * 1000000 + n}, 'x');\n" for n in range(TRANSACTIONS // 4)))
    outputs = [w.communicate(timeout=servers.PATIENCE * 5)[0].splitlines() for w in writers]
    yield outputs, [w.returncode for w in writers]
    yield from sqlite(place, "", "select count(*), sum(n) from small; pragma integrity_check;", "small.db")
    yield killed(place)
    # What the cell wrote, natively.
    place.prefix, cell = [], place.prefix
    for name in ("file.db", "wal.db", "mapped.db", "small-wal.db"):
        yield sqlite(place, "", "pragma integrity_check;", name)
    place.prefix = cell


if __name__ == "__main__":
    servers.main(scenario)
