#!/usr/bin/env python3
"""Fails when an object of the core refers to a symbol that the core does not define itself.

Kernel-side and run-loop code interrupts the application anywhere, also inside malloc: a call into libc
there, or a thread-local variable, works until it does not. `nm` sees every such reference.
"""

import argparse
import pathlib
import subprocess
import sys

# The dynamic linker and ld define these; they are addresses, not code.
LINKER_SYMBOLS = {"_GLOBAL_OFFSET_TABLE_", "__ehdr_start", "_end"}


def symbols(path):
    """Yields (name, kind) for each symbol of an object; kind is nm's letter."""
    out = subprocess.run(["nm", "--format=posix", path], check=True, capture_output=True, text=True)
    for line in out.stdout.splitlines():
        name, kind = line.split()[:2]
        yield name, kind


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stamp", type=pathlib.Path)
    parser.add_argument("objects", nargs="+")
    arguments = parser.parse_args()

    defined, wanted = set(), {}
    for path in arguments.objects:
        for name, kind in symbols(path):
            if kind in "UwvW" and kind != "W":
                wanted.setdefault(name, path)
            else:
                defined.add(name)
    foreign = {n: p for n, p in wanted.items() if n not in defined | LINKER_SYMBOLS}
    for name, path in sorted(foreign.items()):
        print(f"{pathlib.Path(path).name}: refers to {name}, which is not part of the core", file=sys.stderr)
    if foreign:
        return 1
    if arguments.stamp:
        arguments.stamp.write_text(f"{len(arguments.objects)} objects, {len(defined)} symbols\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
