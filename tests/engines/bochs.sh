#!/bin/bash
# tests/engines/bochs.sh [DIRECTORY]   Gets an emulator of a processor with VMX, and prints where it is.
#
# Builds Bochs from the distribution's source archive, with bochs.patch, into DIRECTORY: $XOS_BOCHS_DIR or
# ~/.cache/libxos/bochs by default. That takes a compiler and a minute or two. What is there already is used,
# and no network is needed then; the file's name says from what it was made.
#
# Debian's own binary has VMX as well, but wants a desktop's libraries, and is eight times slower for the debugger
# and the instrumentation in it; and the patch mends errors that hang or fail the tests.
set -euo pipefail

die() { echo "bochs: $*" >&2; exit 1; }

(( $# <= 1 )) || die "usage: bochs.sh [DIRECTORY]"
here=$(dirname "$(realpath "$0")")
archive=bochs_3.0+dfsg.orig.tar.xz
checksum=78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b  # as in Debian 13's index of sources
directory=${1:-${XOS_BOCHS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/libxos/bochs}}
mkdir -p "$directory"
directory=$(realpath "$directory")
bochs=$directory/bochs-$(cat "$0" "$here/bochs.patch" | sha256sum | cut -c1-12)

done_already() { if [[ -x $bochs ]]; then echo "$bochs"; exit 0; fi; }
done_already
# Two engines that start at once must not both build.
exec {lock}>"$directory/lock"
flock "$lock"
done_already

for program in g++ make patch xz; do
    command -v "$program" >/dev/null || die "building Bochs needs $program; run tools/setup.sh build test"
done
work=$(mktemp -d "$directory/build.XXXXXX")
trap 'rm -rf "$work"' EXIT

# From wherever this machine has its packages; apt knows how to get there and checks what it gets.
download() {
    local site
    # shellcheck disable=SC2016  # the dollar is apt's
    for site in $(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | sort -u); do
        /usr/lib/apt/apt-helper -o APT::Sandbox::User=root download-file \
            "$site/pool/main/b/bochs/$archive" "$work/$archive" "SHA256:$checksum" >>"$work/download" 2>&1 &&
            return
    done
    sed 's/^/  /' "$work/download" >&2
    return 1
}
download || die "cannot download $archive from any of this machine's package sources; is the network up?" \
    "To do without, put a $(basename "$bochs") built elsewhere into $directory"

tar -x -C "$work" --strip-components=1 -f "$work/$archive"

patch -s -d "$work" -p1 <"$here/bochs.patch" || die "bochs.patch does not fit this source"

build() {
    cd "$work"
    CFLAGS=-O2 CXXFLAGS='-O2 -fomit-frame-pointer' ./configure \
        --enable-cpu-level=6 --enable-x86-64 --enable-vmx=2 --enable-cet --enable-protection-keys \
        --enable-avx --enable-evex --enable-memtype --enable-pci --enable-smp --enable-all-optimizations \
        --with-nogui --disable-plugins --disable-debugger --disable-docbook --disable-usb --disable-voodoo &&
        make -j"$(nproc)"
}
if ! (build) >"$work/log" 2>&1; then
    tail -20 "$work/log" | sed 's/^/  /' >&2
    die "the build failed"
fi
strip "$work/bochs"
mv "$work/bochs" "$bochs"
echo "$bochs"
