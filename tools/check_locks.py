#!/usr/bin/env python3
"""Fails when a lock is declared where a fork does not know of it.

A fork copies locks as they are, but not the threads that hold them. The core's live in
libxos/memory/fork_locks.hpp, which a fork takes as a whole. A mutex of the C++ face is one that its own
file takes by pthread_atfork(3).
"""

import argparse
import pathlib
import re
import sys

CORE = re.compile(r"^\s*(?:static\s+|inline\s+|constinit\s+|mutable\s+|thread_local\s+)*"
                  r"(?:base::|memory::|xos::)*(futex_lock|shared_lock|edit_lock)\s+\w+\s*(?:\{[^}]*\}|=[^;]*)?;")
FACE = re.compile(r"^\s*(?:static\s+|inline\s+|constinit\s+|mutable\s+)*"
                  r"(std::(?:recursive_|shared_|timed_)*mutex|pthread_(?:mutex|rwlock|spinlock)_t)\s+\w+")
COUNTER = re.compile(r"std::atomic<[^>]*>\s+\w*(?:sequence|lock|spin)\w*\s*(?:[;={])")

REGISTRY = "memory/fork_locks.hpp"
# A table of signal actions has a lock of its own: a fork takes that of the thread that forks, and the
# child goes on with a copy (process_calls_host.cpp, leave_parent).
OF_A_TABLE = {("cell/signal_table.hpp", "shared_lock")}


def faults(root, path):
    name = path.relative_to(root).as_posix()
    text = path.read_text()
    for number, line in enumerate(text.splitlines(), 1):
        found = CORE.match(line) or COUNTER.search(line)
        if found and name != REGISTRY and (name, found.group(1) if found.re is CORE else "") not in OF_A_TABLE:
            yield f"{name}:{number}: {line.strip()} has its place in {REGISTRY}"
        if FACE.match(line) and "pthread_atfork(" not in text:
            yield f"{name}:{number}: {line.strip()} is not taken by pthread_atfork(3) in this file"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stamp", type=pathlib.Path)
    parser.add_argument("root", type=pathlib.Path, help="the folder libxos/")
    arguments = parser.parse_args()
    files = sorted(p for p in arguments.root.rglob("*") if p.suffix in (".hpp", ".cpp"))
    found = [fault for path in files for fault in faults(arguments.root, path)]
    for fault in found:
        print(fault, file=sys.stderr)
    if found:
        return 1
    if arguments.stamp:
        arguments.stamp.write_text(f"{len(files)} files\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
