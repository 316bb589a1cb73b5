#!/bin/bash
# tools/setup.sh [GROUP]...   Installs the Debian packages of these groups that are missing; build, run and test when
# none is named.
#
#   build  compiler, build tools and the libraries that libxos and its benchmarks are made of
#   run    programs that the examples and benchmarks start
#   bench  programs that the suite `app` of `xos bench` runs
#   test   programs that the tests start, the emulated engines of tests/engines, and what the kernel module
#          is built with (kernels and their headers are fetched by tests/engines/kernel.sh, never installed)
#   programs  the real servers, interpreters and tool chains that `make programs` runs in cells
#   kmod   headers to build the kernel module against
#   tidy   clang's tools, for `make tidy` and `make format`
#   fresh  what makes the fresh Debian of `make test-fresh`
set -euo pipefail

build=(g++ cmake ninja-build pkg-config python3
       libboost-context-dev libboost-dev libboost-fiber-dev libpth-dev libjemalloc-dev libmimalloc-dev libcli11-dev libfmt-dev
       nlohmann-json3-dev liburing-dev catch2 libzydis-dev libjs-chart.js)
run=(redis-tools)
bench=(openssl sqlite3 perl python3 redis-server memcached nginx-light)
# python3 is a program under test besides a tool: the tests need Debian's own /usr/bin/python3.
test=(redis-tools sqlite3 perl python3 libjemalloc2 strace musl-tools procps
      qemu-system-x86 busybox-static cpio kmod
      bochsbios binutils make patch sparse libelf1 xz-utils zstd python3-jsonschema)
programs=(libpython3.11-testsuite git rsync bzip2 openssl nodejs openjdk-17-jdk-headless stress-ng
          redis-server memcached nginx-light wrk postgresql-15 chromium chromium-driver python3-selenium)
kmod=(linux-headers-amd64 make kmod)
tidy=(clang-tidy clang-format git)
fresh=(debootstrap git)

wanted=()
(( $# )) || set -- build run test
for group; do
    case $group in
        build) wanted+=("${build[@]}") ;;
        run)   wanted+=("${run[@]}") ;;
        bench) wanted+=("${bench[@]}") ;;
        test)  wanted+=("${test[@]}") ;;
        programs) wanted+=("${programs[@]}") ;;
        kmod)  wanted+=("${kmod[@]}") ;;
        tidy)  wanted+=("${tidy[@]}") ;;
        fresh) wanted+=("${fresh[@]}") ;;
        *)
            echo "setup: no group '$group'; there are build, run, bench, test, programs, kmod, tidy and fresh" >&2
            exit 2 ;;
    esac
done

command -v dpkg-query >/dev/null ||
    { echo "setup: not a Debian system; install the equivalents of: ${wanted[*]}" >&2; exit 1; }

# dpkg-query fails when it knows nothing of some package: such a package simply is not in its list.
installed=$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' "${wanted[@]}" 2>/dev/null || true)
missing=()
for package in "${wanted[@]}"; do
    [[ $'\n'$installed$'\n' == *$'\n'"installed $package"$'\n'* ]] || missing+=("$package")
done
(( ${#missing[@]} )) || exit 0

if (( EUID != 0 )); then
    echo "setup: packages are missing; install them with"
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}"
    exit 1
fi >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update
# The tests start servers of their own: none is to run because it was installed, nor to get a database.
if [[ ! -e /usr/sbin/policy-rc.d ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
    chmod +x /usr/sbin/policy-rc.d
fi
if [[ " ${missing[*]} " == *" postgresql"* && ! -e /etc/postgresql-common/createcluster.d ]]; then
    mkdir -p /etc/postgresql-common/createcluster.d
    echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.d/no-cluster.conf
fi
apt-get install -y --no-install-recommends "${missing[@]}"
