#!/bin/bash
# tests/kmod/build.sh SOURCE KERNELDIR SERIES OUT
#
# Builds OUT/xos.ko for the kernel in KERNELDIR, which is fetched with its headers if it is not there. Any message of the
# compiler or of sparse is a failure. So is one of checkpatch.pl, where CHECKPATCH names it; Debian's headers lack it.
set -euo pipefail

fail() { echo "kmod: $*" >&2; exit 1; }

(( $# == 4 )) || fail "usage: build.sh SOURCE KERNELDIR SERIES OUT"
source=$1 kernel=$2 series=$3 out=$4
here=$(dirname "$(realpath "$0")")
command -v sparse >/dev/null || fail "sparse is missing; run tools/setup.sh test"

"$here/../engines/kernel.sh" "$kernel" --series "$series" --headers
rm -rf "$out"
mkdir -p "$out"
cp "$source"/{Kbuild,Makefile,xos.c,xos_calls.h,xos_uapi.h} "$out"
log=$out/build.log
make -C "$out" KDIR="$kernel/build" check >"$log" 2>&1 || { cat "$log"; fail "the module does not build for $series"; }
! grep -iE 'warning|error' "$log" || fail "the module does not build cleanly for $series"
release=$(ls "$kernel/lib/modules")
modinfo -F vermagic "$out/xos.ko" | grep -q "^$release " || fail "xos.ko is not for $release"
echo "kmod: built for $release"
