#!/bin/bash
# tests/engines/initramfs.sh OUT KERNELDIR amd|intel [--program PATH | --module PATH | FILE=/dest]...
#
# Packs the initramfs of an emulated machine: busybox, KVM's modules, tests/engines/init, and what the options name.
#
#   --program PATH  the program, its shared libraries and its loader, each where it is on this machine
#   --module PATH   a kernel module, loaded after KVM's
#   FILE=/dest      a file or a directory; not below /dev, /proc or /sys, which are mounted over
set -euo pipefail

die() { echo "initramfs: $*" >&2; exit 1; }

(( $# >= 3 )) || die "usage: initramfs.sh OUT KERNELDIR amd|intel [--program PATH | --module PATH | FILE=/dest]..."
out=$1 kernel=$2 vendor=$3
shift 3
here=$(dirname "$(realpath "$0")")
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
chmod 755 "$root"

# Replaces what is there, because a busybox command is a hard link: writing into it changes all of them.
add() {
    mkdir -p "$root$(dirname "$2")"
    cp -RL --preserve=mode --remove-destination -T "$1" "$root$2"
}

add_program() {
    local path library libraries
    [[ -f $1 && -x $1 ]] || die "$1 is not a program"
    path=$(realpath -s "$1")
    add "$path" "$path"
    # ldd fails for a static program, which needs nothing else.
    libraries=$(ldd "$path" 2>/dev/null || true)
    [[ $libraries != *"not found"* ]] || die "$path lacks a library:"$'\n'"$libraries"
    # "name => /path (address)" or, for the loader, "/path (address)"
    for library in $(grep -oE '(^|[[:space:]])/[^ ]+' <<<"$libraries" || true); do
        add "$library" "$library"
    done
}

add_modules() {
    local release module modules
    release=$(ls "$kernel/lib/modules")
    mkdir "$root/modules"
    modules=$(modprobe -C /dev/null -d "$kernel" -S "$release" --show-depends "kvm-$vendor" |
        awk '$1 == "insmod" { print $2 }')
    for module in $modules; do
        cp "$module" "$root/modules"
        basename "$module" >>"$root/modules/order"
    done
}

# Debug information would be most of it, and the machine's memory holds it until it is loaded.
add_module() {
    strip --strip-debug -o "$root/modules/$(basename "$1")" "$1"
    basename "$1" >>"$root/modules/order"
}

# The directories of a Debian system, so that a program finds its libraries and its interpreter by either name.
mkdir -p "$root"/{dev,etc,proc,root,run,sys,tmp,usr/bin,usr/sbin,usr/lib,usr/lib64,var}
chmod 1777 "$root/tmp"
for name in bin sbin lib lib64; do ln -s "usr/$name" "$root/$name"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"

cp -L /bin/busybox "$root/usr/bin/busybox"
"$root/usr/bin/busybox" --install "$root/usr/bin"
install -m 755 "$here/init" "$root/init"
add_modules

while (( $# )); do
    case $1 in
        --program) (( $# > 1 )) || die "--program needs a path"; add_program "$2"; shift 2 ;;
        --module) (( $# > 1 )) || die "--module needs a path"; add_module "$2"; shift 2 ;;
        *=/*) add "${1%%=*}" "${1#*=}"; shift ;;
        *) die "neither --program PATH, --module PATH nor FILE=/dest: $1" ;;
    esac
done

(cd "$root" && find . | cpio -o -H newc --quiet) >"$out"
