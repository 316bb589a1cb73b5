#!/usr/bin/env bash
# fresh.sh [--quick | --full | --tests REGEX]: runs `make run` and then `make test` on a fresh Debian 12. That is a
# minimal one that debootstrap makes, with a clone of what is committed and nothing else. The script fails when the
# project's own files do not install all that they need.
#
#   --quick        the tests that tell most about what is installed, in a few minutes; the default
#   --full         all tests, `make programs` and `make kmod`, which takes hours
#   --tests REGEX  the tests whose names match
#
# Packages come from where this machine gets its own. The packages and the minimal Debian are kept below
# ${XDG_CACHE_HOME:-~/.cache}/libxos/fresh. Nothing else of this machine is used. Without /dev/kvm, `make run` has
# nothing to run a cell on, so `make build` replaces it, and the quick tests are those on emulated machines.
# Everything runs in mount and process namespaces of its own, and ends with the script.
set -euo pipefail

die() { echo "fresh: $*" >&2; exit 1; }

project=$(cd "$(dirname "$0")/.." && pwd)
release=bookworm
cache=${XDG_CACHE_HOME:-$HOME/.cache}/libxos/fresh
# A user has to get `make` before anything.
packages='make'

# Sources of Debian itself; not those that somebody has added.
sources() {
    # shellcheck disable=SC2016  # the dollars are apt's
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        grep -E "^deb [^ ]+ $release(-updates|-security)? main\$" | sort -u
}

# Sets `base`, the archive of the minimal system. What is a month old is made anew.
make_base() {
    local mirror
    mirror=$(sources | awk -v release=$release '$3 == release { print $2; exit }')
    [[ $mirror ]] || die "no Debian 12 mirror among this system's package sources"
    base=$cache/base-$(echo "$release $packages $mirror" | sha256sum | cut -c1-12).tar
    find "$cache" -maxdepth 1 -name 'base-*.tar' -mtime +30 -delete
    [[ ! -e $base ]] || return 0
    echo "== debootstrap $release from $mirror"
    debootstrap --variant=minbase --include=$packages $release "$root" "$mirror" >"$cache/debootstrap.log" 2>&1 ||
        { tail -20 "$cache/debootstrap.log" >&2; die "debootstrap failed"; }
    rm -f "$root"/var/cache/apt/archives/*.deb
    tar -C "$root" --one-file-system -cf "$base.new" .
    mv "$base.new" "$base"
}

# How this machine gets packages is how the fresh one does: sources, proxies, credentials, certificates.
copy_apt_settings() {
    sources >"$root/etc/apt/sources.list"
    apt-config dump Acquire >"$root/etc/apt/apt.conf.d/90acquire"
    local file
    for file in /etc/apt/auth.conf /etc/apt/auth.conf.d; do
        [[ ! -e $file ]] || cp -R --preserve=mode "$file" "$root/etc/apt/"
    done
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    # It need not survive a power failure.
    echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io"
    if grep -q https: "$root/etc/apt/sources.list" "$root/etc/apt/apt.conf.d/90acquire"; then
        mkdir -p "$root/etc/ssl/certs"
        cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
    fi
}

clone() {
    git clone --quiet --depth 1 "file://$project" "$root/root/libxos"
    echo "== $(git -C "$root/root/libxos" log -1 --format='%h %s')"
    [[ ! $(git -C "$project" status --porcelain) ]] ||
        echo "fresh: what is not committed is not tested" >&2
}

# In namespaces of our own: makes the system, becomes its first process, and does there what `script` says.
inside() {
    root=$1 script=$2
    make_base
    # It is empty but for debootstrap's work.
    [[ -e $root/etc ]] || tar -C "$root" -xf "$base"
    copy_apt_settings
    clone
    mount --bind "$root" "$root"
    cd "$root"
    mount --rbind /dev dev
    mount --rbind /sys sys
    mount -t proc proc proc
    mount --bind "$cache/archives" var/cache/apt/archives
    # Not chroot alone: there, neither user namespaces nor private mounts are to be had, which tests use.
    mkdir outside
    pivot_root . outside
    cd /
    umount -l /outside
    rmdir /outside
    # Of the environment, what leads to the network; and a test that is skipped has found something missing.
    local variables=()
    for variable in http_proxy https_proxy ftp_proxy no_proxy; do
        [[ ! -v $variable ]] || variables+=("$variable=${!variable}")
    done
    exec env -i "${variables[@]}" HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        CI=true bash -ec "cd /root/libxos; $script"
}

if [[ ${1-} == --inside ]]; then
    inside "$2" "$3"
fi

on_emulated='unit|headers|bench\.options|engine\.qemu-svm|loader\.qemu-svm\..*|docs\.syscalls|kmod\.build\.6\.1'
on_this_machine='guest\.native|programs\.native|loader\.programs|loader\.programs\.own|loader\.cells|jemalloc\.native'
on_this_machine+='|run\.options|doctor|install|kvd\.linux|kvd\.cell|gc_dirty\.native|swizzle\.native'
first='make run' quick="$on_emulated|$on_this_machine"
if [[ ! -e /dev/kvm ]]; then
    echo "fresh: there is no /dev/kvm: no \`make run\`, and no quick tests but those on emulated machines" >&2
    first='make build setup-run' quick=$on_emulated
fi
case ${1---quick} in
    --quick) (( $# <= 1 )) || die "--quick takes no value"; commands=("$first" "make test TESTS='$quick'") ;;
    --full) (( $# == 1 )) || die "--full takes no value"
            commands=("$first" 'make test' 'make programs' 'make kmod') ;;
    --tests) (( $# == 2 )) || die "--tests needs a regular expression"
             commands=("$first" "make test TESTS='$2'") ;;
    *) die "usage: fresh.sh [--quick | --full | --tests REGEX]" ;;
esac

(( EUID == 0 )) || die "only root can mount the file systems of another Debian"
"$project/tools/setup.sh" fresh
mkdir -p "$cache/archives/partial"
exec {lock}>"$cache/lock"
flock "$lock"
# Of a run that was killed.
rm -rf --one-file-system "$cache"/root.*
root=$(mktemp -d "$cache/root.XXXXXX") space=''
chmod 755 "$root"

# shellcheck disable=SC2317  # a trap calls it
end() {
    local first_process
    # The first process takes all others along, and the mounts.
    # shellcheck disable=SC2086  # a space follows the number
    if [[ $space ]]; then
        first_process=$(<"/proc/$space/task/$space/children")
        kill -KILL $first_process
        wait "$space"
    fi 2>/dev/null || true
    rm -rf --one-file-system "$root"
}
trap end EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

script=''
for command in "${commands[@]}"; do
    script+="echo; echo ${command@Q}; $command || { echo FAILED: ${command@Q}; exit 1; };"
done
# Should this script be killed, unshare is, and with it the first process.
setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child "$0" --inside "$root" "$script" {lock}>&- &
space=$!
status=0
wait "$space" || status=$?
space=''
took="in $((SECONDS / 60)) min $((SECONDS % 60)) s"
(( status == 0 )) || die "failed on a fresh Debian 12, $took"
echo "fresh: all of it passed on a fresh Debian 12, $took: $(printf '%s; ' "${commands[@]}")"
