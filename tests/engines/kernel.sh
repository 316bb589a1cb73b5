#!/bin/bash
# tests/engines/kernel.sh OUTDIR   Gets the distribution's stock 6.1 kernel, for an emulated machine to boot.
#
#   OUTDIR/vmlinux        the kernel as an ELF file
#   OUTDIR/lib/modules/   KVM and what it depends on
#   OUTDIR/version        package and version
#
# The package is downloaded, never installed. An OUTDIR that has its version file is complete: nothing is
# done then, and no network is needed. To get a newer kernel, delete OUTDIR.
set -euo pipefail

die() { echo "kernel: $*" >&2; exit 1; }

(( $# == 1 )) || die "usage: kernel.sh OUTDIR"
[[ ! -e $1/version ]] || exit 0
here=$(dirname "$(realpath "$0")")
mkdir -p "$(dirname "$1")"
outdir=$(realpath "$1")

# Two engines that start at once must not both download.
exec {lock}>"$outdir.lock"
flock "$lock"
[[ ! -e $outdir/version ]] || exit 0
# Never deletes what somebody else has put there.
[[ ! -d $outdir ]] || rmdir --ignore-fail-on-non-empty "$outdir"
[[ ! -e $outdir ]] || die "$outdir holds something else than a kernel; delete it or name another directory"

work=$(mktemp -d "$outdir.XXXXXX")
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"

# "linux-image-6.1.0-N-amd64=VERSION", the newest of that series that linux-image-amd64 stands for.
newest_package() {
    apt-cache show linux-image-amd64 2>/dev/null |
        sed -nE 's/^Depends:.*(linux-image-6\.1\.[^ ]+-amd64) \(= ([^)]+)\).*/\1=\2/p' |
        sort -V | tail -1
}

# As root, apt would warn that its own user cannot write to the directory.
download() {
    package=$(newest_package)
    [[ $package ]] && (cd "$work" && apt-get -q -o APT::Sandbox::User=root download "$package") >&2
}

if ! download; then
    # Package lists that are missing or older than the archive are the usual reason.
    if (( EUID == 0 )); then apt-get -q update >&2; fi
    download || die "cannot download a linux-image-6.1 package; is the network up, and is 'apt-get update' needed?"
fi

dpkg-deb --fsys-tarfile "$work"/*.deb |
    tar -x -C "$work" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' \
        './lib/modules/*/kernel/arch/x86/kvm' './lib/modules/*/kernel/virt/lib' \
        './lib/modules/*/kernel/drivers/crypto/ccp'
rm "$work"/*.deb
release=$(ls "$work/lib/modules")
# modules.order names the modules that were left out, and depmod has a word to say on each.
depmod -b "$work" "$release" 2>/dev/null
python3 "$here/extract_vmlinux.py" "$work/boot/vmlinuz-$release" "$work/vmlinux"
rm -r "${work:?}/boot"
echo "$package" >"$work/version"

# One rename makes all of it appear.
mv -T "$work" "$outdir"
