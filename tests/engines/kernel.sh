#!/bin/bash
# tests/engines/kernel.sh OUTDIR [--series 6.1|6.12] [--headers]
#
# Gets the distribution's stock kernel of that series, 6.1 by default, for an emulated machine to boot.
#
#   OUTDIR/vmlinux        the kernel as an ELF file
#   OUTDIR/lib/modules/   KVM and what it depends on
#   OUTDIR/version        package and version
#   OUTDIR/build          with --headers: what a module for exactly this kernel is built against (KDIR)
#
# Packages are downloaded, never installed. Linux 6.12 comes from backports on the system's own mirror; the system's
# package lists need not know of them. An OUTDIR that is complete is left alone, and no network is needed then. To get a
# newer kernel, delete OUTDIR.
set -euo pipefail

die() { echo "kernel: $*" >&2; exit 1; }

usage="usage: kernel.sh OUTDIR [--series 6.1|6.12] [--headers]"
(( $# >= 1 )) || die "$usage"
target=$1 series=6.1 headers=
shift
while (( $# )); do
    case $1 in
        --series) series=${2:?$usage}; shift 2 ;;
        --headers) headers=yes; shift ;;
        *) die "$usage" ;;
    esac
done
complete() { [[ -e $target/version && ( ! $headers || -e $target/build ) ]]; }
! complete || exit 0
here=$(dirname "$(realpath "$0")")
mkdir -p "$(dirname "$target")"
target=$(realpath "$target")

# Two engines that start at once must not both download.
exec {lock}>"$target.lock"
flock "$lock"
! complete || exit 0

work=$(mktemp -d "$target.XXXXXX")
lists=$(mktemp -d)
trap 'rm -rf "$work" "$lists"' EXIT
chmod 755 "$work"

# As root, apt would warn that its own user cannot write to the directory.
apt_options=(-q -o APT::Sandbox::User=root)
case $series in
    6.1) ;;
    6.12)
        mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
        mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Release: bookworm' | head -1)
        [[ $mirror ]] || die "no Debian 12 mirror among this system's package sources; is 'apt-get update' needed?"
        echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror bookworm-backports main" \
            >"$lists/sources.list"
        apt_options+=(-o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null
            -o "Dir::State::lists=$lists/lists" -o "Dir::Cache=$lists/cache") ;;
    *) die "unknown series $series; there are 6.1 and 6.12" ;;
esac

# "linux-image-6.1.0-N-amd64=VERSION", the newest of that series that linux-image-amd64 stands for.
newest_package() {
    apt-cache "${apt_options[@]}" show linux-image-amd64 2>/dev/null |
        sed -nE "s/^Depends:.*(linux-image-${series/./\\.}\\.[^ ]+-amd64) \\(= ([^)]+)\\).*/\\1=\\2/p" |
        sort -V | tail -1
}

download() { (( $# )) && (mkdir -p "$work/deb" && cd "$work/deb" && apt-get "${apt_options[@]}" download "$@") >&2; }

# Package lists that are missing or older than the archive are the usual reason for a failure. The private ones
# of backports begin empty.
update() {
    if (( EUID == 0 )) || [[ $series != 6.1 ]]; then apt-get "${apt_options[@]}" update >&2; fi
}

unpack_image() {
    dpkg-deb --fsys-tarfile "$work"/deb/linux-image-*.deb |
        tar -x -C "$work" --wildcards './boot/vmlinuz-*' './lib/modules/*/modules.*' \
            './lib/modules/*/kernel/arch/x86/kvm' './lib/modules/*/kernel/virt/lib' \
            './lib/modules/*/kernel/drivers/crypto/ccp'
    rm -r "$work/deb"
    local release
    release=$(ls "$work/lib/modules")
    find "$work/lib" -name '*.ko.xz' -exec xz -d {} +
    # modules.order names the modules that were left out, and depmod has a word to say on each.
    depmod -b "$work" "$release" 2>/dev/null
    python3 "$here/extract_vmlinux.py" "$work/boot/vmlinuz-$release" "$work/vmlinux"
    rm -r "${work:?}/boot"
}

fetch_image() {
    # Never deletes what somebody else has put there.
    [[ ! -d $target ]] || rmdir --ignore-fail-on-non-empty "$target"
    [[ ! -e $target ]] || die "$target holds something else than a kernel; delete it or name another directory"
    package=$(newest_package) || true
    if ! download ${package:+"$package"}; then
        update
        package=$(newest_package) || true
        download ${package:+"$package"} ||
            die "cannot download a linux-image-$series package; is the network up, and is 'apt-get update' needed?"
    fi
    unpack_image
    echo "$package" >"$work/version"
    # One rename makes all of it appear.
    mv -T "$work" "$target"
}

# Three packages of the image's own version: what depends on the configuration, what does not, and the tools.
fetch_headers() {
    local name version common kbuild
    IFS='=' read -r name version <"$target/version"
    name=${name/image/headers}
    common=${name%-amd64}-common kbuild=${name%-amd64}
    # 6.1's is named by the series, 6.12's by the release.
    case $series in
        6.1) kbuild=linux-kbuild-6.1 ;;
        *) kbuild=${kbuild/headers/kbuild} ;;
    esac
    mkdir -p "$work"
    local all=("$name=$version" "$common=$version" "$kbuild=$version")
    if ! download "${all[@]}"; then
        update
        download "${all[@]}" ||
            die "cannot download ${all[*]}; if the archive has newer ones only, delete $target"
    fi
    local package
    for package in "$work"/deb/*.deb; do dpkg-deb --fsys-tarfile "$package" | tar -x -C "$work"; done
    rm -rf "$target/headers"
    # The only absolute path in them.
    sed -i "s|/usr/src/|$target/headers/usr/src/|" "$work/usr/src/$name/Makefile"
    mkdir "$work/headers"
    mv "$work/usr" "$work/headers/usr"
    mv -T "$work/headers" "$target/headers"
    ln -sfn "headers/usr/src/$name" "$target/build"
}

[[ -e $target/version ]] || fetch_image
[[ ! $headers || -e $target/build ]] || fetch_headers
