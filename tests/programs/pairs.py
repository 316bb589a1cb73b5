#!/usr/bin/env python3
"""Runs programs natively and under `xos run`, and compares what a user can see of them.

    pairs.py [--run-option=OPTION]... [--programs=DIRECTORY] XOS pairs.list [NAME...]

A line of the list is `name: command`, split like a shell splits words; `$T` is an empty directory of
its own for each run, `$P` the directory of programs made for the list, or else the list's own. Standard
output, standard error and exit status must be the same byte for byte.
"""

import pathlib
import shlex
import subprocess
import sys
import tempfile

TIMEOUT = 120


def run(prefix, words, programs):
    with tempfile.TemporaryDirectory() as scratch:
        words = [w.replace("$T", scratch).replace("$P", programs) for w in words]
        try:
            done = subprocess.run(prefix + words, stdin=subprocess.DEVNULL, capture_output=True,
                                  timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            return (f"no end within {TIMEOUT} s", b"", b"")
        hide = lambda text: text.replace(scratch.encode(), b"$T")
        return (done.returncode, hide(done.stdout), hide(done.stderr))


def describe(what, native, cell):
    if not isinstance(native, bytes):
        return f"    {what}: natively {native}, in the cell {cell}"
    a, b = native.splitlines(), cell.splitlines()
    for n, (x, y) in enumerate(zip(a + [b"(end)"], b + [b"(end)"]), 1):
        if x != y:
            return f"    {what} line {n}:\n      natively    {x[:160]!r}\n      in the cell {y[:160]!r}"
    return f"    {what}: {len(native)} bytes natively, {len(cell)} in the cell"


def main():
    marker = "--run-option="
    options = [a[len(marker):] for a in sys.argv[1:] if a.startswith(marker)]
    directory = "--programs="
    programs = "".join(a[len(directory):] for a in sys.argv[1:] if a.startswith(directory))
    xos, listing, *names = [a for a in sys.argv[1:] if not a.startswith((marker, directory))]
    programs = programs or str(pathlib.Path(listing).resolve().parent)
    failed = passed = 0
    for line in pathlib.Path(listing).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, command = line.split(":", 1)
        if names and name not in names:
            continue
        words = shlex.split(command)
        native, cell = run([], words, programs), run([xos, "run", *options, "--"], words, programs)
        differences = [describe(what, x, y) for what, x, y in
                       zip(("exit status", "standard output", "standard error"), native, cell) if x != y]
        if differences:
            failed += 1
            print(f"FAIL {name}\n" + "\n".join(differences), flush=True)
        else:
            passed += 1
            print(f"ok   {name} (status {native[0]})", flush=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
