#!/usr/bin/env python3
"""pvh_image.py VMLINUX INITRAMFS MEGABYTES COMMAND-LINE START-INFO-ADDRESS OUTDIR

Lays out a kernel, and what it is told at its start, in the memory of an emulated machine, so that neither a
boot loader nor a disk is needed. It writes OUTDIR/kernel, the kernel's segments as they lie in memory, and
OUTDIR/start-info, and prints "FILE ADDRESS" for each image to be loaded.

The start info begins with the kernel's entry, which is all that the boot sector (pvh_boot.S) looks at.
Structures: Xen's public/arch-x86/hvm/start_info.h and docs/misc/pvh.pandoc; the kernel names its entry in
an ELF note, XEN_ELFNOTE_PHYS32_ENTRY.
"""

import os
import struct
import sys

PT_LOAD, PT_NOTE = 1, 4
PHYS32_ENTRY = 18
START_INFO_MAGIC = 0x336EC578
RAM, RESERVED, ACPI = 1, 2, 3
ACPI_TABLES = 0x10000  # the BIOS puts them at the end of memory
MEGABYTE = 1 << 20


def program_headers(elf: bytes):
    """type, offset in the file, physical address, size in the file"""
    table, = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    for i in range(count):
        kind, _, offset, _, physical, length, _, _ = struct.unpack_from(
            "<IIQQQQQQ", elf, table + i * size
        )
        yield kind, offset, physical, length


def entry(elf: bytes) -> int:
    def padded(n: int) -> int:
        return n + 3 & ~3

    for kind, offset, _, length in program_headers(elf):
        note, end = offset, offset + length
        while kind == PT_NOTE and note < end:
            name, content, tag = struct.unpack_from("<III", elf, note)
            at = note + 12 + padded(name)
            if tag == PHYS32_ENTRY and elf[note + 12 : note + 16] == b"Xen\0":
                return int.from_bytes(elf[at : at + content], "little")
            note = at + padded(content)
    raise ValueError("no PVH entry; is CONFIG_PVH set?")


def flat(elf: bytes) -> tuple[int, bytes]:
    segments = [
        (physical, elf[offset : offset + length])
        for kind, offset, physical, length in program_headers(elf)
        if kind == PT_LOAD
    ]
    base = min(at for at, _ in segments)
    image = bytearray(max(at + len(content) for at, content in segments) - base)
    for at, content in segments:
        image[at - base : at - base + len(content)] = content
    return base, bytes(image)


def start_info(at: int, entry_point: int, module: tuple[int, int], memory: int, words: str) -> bytes:
    end = memory - ACPI_TABLES
    ranges = [
        (0, 0x9F000, RAM),
        (0x9F000, 0x61000, RESERVED),
        (MEGABYTE, end - MEGABYTE, RAM),
        (end, ACPI_TABLES, ACPI),
    ]
    memory_map = b"".join(struct.pack("<QQII", *r, 0) for r in ranges)
    modules_at = at + 16 + 56
    map_at = modules_at + 32
    words_at = map_at + len(memory_map)
    head = struct.pack(
        "<IIIIQQQQII", START_INFO_MAGIC, 1, 0, 1, modules_at, words_at, 0, map_at, len(ranges), 0
    )
    return (
        struct.pack("<QQ", entry_point, 0)
        + head
        + struct.pack("<QQQQ", *module, 0, 0)
        + memory_map
        + words.encode()
        + b"\0"
    )


def main() -> None:
    if len(sys.argv) != 7:
        sys.exit(__doc__)
    vmlinux, initramfs, megabytes, words, info_at, outdir = sys.argv[1:]
    memory, info_at = int(megabytes) * MEGABYTE, int(info_at, 0)
    with open(vmlinux, "rb") as file:
        elf = file.read()
    base, kernel = flat(elf)
    size = os.path.getsize(initramfs)
    # Below the tables at the end of memory, from where the kernel's own early allocations come too.
    initramfs_at = (memory - 16 * MEGABYTE - size) & -MEGABYTE
    if initramfs_at < base + len(kernel) + 128 * MEGABYTE:
        raise ValueError(f"{megabytes} MB of memory are not enough")
    info = start_info(info_at, entry(elf), (initramfs_at, size), memory, words)
    for name, content in ("kernel", kernel), ("start-info", info):
        with open(os.path.join(outdir, name), "wb") as file:
            file.write(content)
    print(os.path.join(outdir, "kernel"), hex(base))
    print(initramfs, hex(initramfs_at))
    print(os.path.join(outdir, "start-info"), hex(info_at))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"pvh_image: {error}")
