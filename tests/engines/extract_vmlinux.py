#!/usr/bin/env python3
"""extract_vmlinux.py BZIMAGE VMLINUX: unpacks the ELF kernel that a bzImage carries compressed.

QEMU boots the ELF file directly (PVH), which saves the emulated CPU the decompression: half of the boot.
The header fields are those of Documentation/arch/x86/boot.rst in the kernel tree.
"""

import lzma
import struct
import subprocess
import sys
import zlib

SETUP_SECTS = 0x1F1
HEADER_MAGIC = 0x202
PAYLOAD = 0x248  # payload_offset, payload_length

def unzstd(data: bytes) -> bytes:
    """Python 3.11 knows no Zstandard. The last four bytes are the unpacked length."""
    return subprocess.run(["zstd", "-dcq"], input=data[:-4], stdout=subprocess.PIPE, check=True).stdout


UNPACK = {
    b"\xfd7zXZ\0": lambda data: lzma.LZMADecompressor().decompress(data),
    b"\x28\xb5\x2f\xfd": unzstd,
    b"\x1f\x8b": lambda data: zlib.decompressobj(wbits=31).decompress(data),
}


def extract(image: bytes) -> bytes:
    if image[HEADER_MAGIC : HEADER_MAGIC + 4] != b"HdrS":
        raise ValueError("not a bzImage")
    offset, length = struct.unpack_from("<II", image, PAYLOAD)
    start = ((image[SETUP_SECTS] or 4) + 1) * 512 + offset
    payload = image[start : start + length]
    for magic, unpack in UNPACK.items():
        if payload.startswith(magic):
            vmlinux = unpack(payload)  # the four bytes of length behind the stream are left over
            break
    else:
        raise ValueError(f"compressed in a way this script does not know: {payload[:6].hex()}")
    if not vmlinux.startswith(b"\x7fELF"):
        raise ValueError("the payload is no ELF file")
    return vmlinux


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, target = sys.argv[1:]
    try:
        with open(source, "rb") as file:
            vmlinux = extract(file.read())
    except ValueError as error:
        sys.exit(f"extract_vmlinux: {source}: {error}")
    with open(target, "wb") as file:
        file.write(vmlinux)


if __name__ == "__main__":
    main()
