#!/usr/bin/env bash
# install_test.sh BUILD-DIRECTORY: installs by `cmake --install` into a place that was not configured, and moves it to
# another one. Another project must build with what is there, by CMake and by pkg-config, and the installed command must
# run a program.
set -euo pipefail
build=$1
project=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# says NAME WANTED COMMAND...: what the command prints.
says() {
    local name=$1 wanted=$2 got
    shift 2
    got=$("$@") || { echo "FAIL $name: status $?: $got"; exit 1; }
    [[ $got == "$wanted" ]] || { echo "FAIL $name: '$got', not '$wanted'"; exit 1; }
    echo "$name: ok"
}

cmake --install "$build" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/usr"
usr=$work/usr
pkgconfig=$(dirname "$(find "$usr/" -name xos.pc)")
libdir=$(dirname "$pkgconfig")
prefix=$(sed -n 's/^CMAKE_INSTALL_PREFIX:PATH=//p' "$build/CMakeCache.txt")
if grep -rIF -e "$work/first" -e "$prefix/" -e "$build" "$pkgconfig" "$libdir/cmake"; then
    echo "FAIL the files name a place where libxos is not"
    exit 1
fi

# The README's example is what a user tries first.
mkdir "$work/consumer"
awk '/^```cpp$/ { on = 1; next } /^```$/ { on = 0 } on' "$project/README.md" >"$work/consumer/main.cpp"
cat >"$work/consumer/CMakeLists.txt" <<'C'
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES CXX)
find_package(xos 0.1 REQUIRED)
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE xos::xos)
C
printed='numbers[99999] = 99999'

build_consumer() {
    cmake -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$usr" >>"$work/log" &&
        cmake --build "$work/consumer/build" >>"$work/log" || { cat "$work/log"; exit 1; }
}
build_consumer
says 'find_package(xos)' "$printed" "$work/consumer/build/consumer"

# build_by_pkg_config PACKAGE SOURCE OUT
build_by_pkg_config() {
    local flags
    flags=$(PKG_CONFIG_PATH="$pkgconfig" pkg-config --cflags --libs "$1")
    # shellcheck disable=SC2086
    g++ -std=c++20 "$2" -o "$3" $flags
}
build_by_pkg_config xos "$work/consumer/main.cpp" "$work/by-pkg-config"
says 'pkg-config xos' "$printed" env LD_LIBRARY_PATH="$libdir" "$work/by-pkg-config"

# jemalloc on an arena, if this build has it.
if [[ -e $libdir/libxos-jemalloc.a ]]; then
    cat >"$work/consumer/heap.cpp" <<'C'
#include <cstdio>
#include <xos/cell.hpp>
#include <xos/jemalloc.hpp>
int main() {
    xos::enter();
    xos::memory::arena pool({.bytes = 64 << 20});
    {
        xos::memory::jemalloc_heap heap(pool);
        std::puts(pool.owns(heap.allocate(100)) ? "in the arena" : "elsewhere");
    }
    xos::leave();
}
C
    cat >>"$work/consumer/CMakeLists.txt" <<'C'
add_executable(heap heap.cpp)
target_link_libraries(heap PRIVATE xos::jemalloc xos::xos)
C
    build_consumer
    says xos::jemalloc 'in the arena' "$work/consumer/build/heap"
    build_by_pkg_config xos-jemalloc "$work/consumer/heap.cpp" "$work/heap"
    says 'pkg-config xos-jemalloc' 'in the arena' env LD_LIBRARY_PATH="$libdir" "$work/heap"
fi

# The scheduler, which needs no cell.
cat >"$work/consumer/fibers.cpp" <<'C'
#include <cstdio>
#include <xos/sched.hpp>
int main() {
    xos::sched::scheduler s;
    s.run([] { xos::sched::fiber([] { std::puts("on a fiber"); }).join(); });
}
C
cat >>"$work/consumer/CMakeLists.txt" <<'C'
add_executable(fibers fibers.cpp)
target_link_libraries(fibers PRIVATE xos::sched)
C
build_consumer
says xos::sched 'on a fiber' "$work/consumer/build/fibers"

says 'installed xos run' '' "$usr/bin/xos" run true
says 'installed xos run --loader=own' 'from the cell' "$usr/bin/xos" run --loader=own -- echo from the cell
if [[ -e $usr/libexec/xos/xos-bench ]]; then
    "$usr/bin/xos" bench --list | grep -q '^trap/' || { echo "FAIL installed xos bench"; exit 1; }
    echo 'installed xos bench: ok'
fi
