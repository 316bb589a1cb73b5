#!/usr/bin/env bash
# install_test.sh BUILD-DIRECTORY: what `cmake --install` leaves is enough for another project, by CMake
# and by pkg-config, and the installed command runs a program.
set -euo pipefail
build=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cmake --install "$build" --prefix "$work/usr" >/dev/null

mkdir "$work/consumer"
cat >"$work/consumer/CMakeLists.txt" <<'C'
cmake_minimum_required(VERSION 3.25)
project(consumer LANGUAGES CXX)
find_package(xos 0.1 REQUIRED)
add_executable(consumer main.cpp)
target_link_libraries(consumer PRIVATE xos::xos)
C
cat >"$work/consumer/main.cpp" <<'C'
#include <xos/cell.hpp>
#include <cstdio>
int main() {
    xos::enter();
    std::puts(xos::inside() ? "inside" : "outside");
    xos::leave();
}
C
cmake -S "$work/consumer" -B "$work/consumer/build" -DCMAKE_PREFIX_PATH="$work/usr" >"$work/log"
cmake --build "$work/consumer/build" >>"$work/log"
[[ $("$work/consumer/build/consumer") == inside ]]
echo "find_package(xos): ok"

libdir=$(dirname "$(find "$work/usr" -name xos.pc)")/..
flags=$(sed "s#^prefix=.*#prefix=$work/usr#" "$libdir/pkgconfig/xos.pc" >"$work/xos.pc" &&
    PKG_CONFIG_PATH="$work" pkg-config --cflags --libs xos)
# shellcheck disable=SC2086
g++ -std=c++20 "$work/consumer/main.cpp" -o "$work/by-pkg-config" $flags
[[ $(LD_LIBRARY_PATH=$libdir "$work/by-pkg-config") == inside ]]
echo "pkg-config xos: ok"

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
    cmake -S "$work/consumer" -B "$work/consumer/build" >>"$work/log"
    cmake --build "$work/consumer/build" >>"$work/log"
    [[ $("$work/consumer/build/heap") == "in the arena" ]]
    sed "s#^prefix=.*#prefix=$work/usr#" "$libdir/pkgconfig/xos-jemalloc.pc" >"$work/xos-jemalloc.pc"
    flags=$(PKG_CONFIG_PATH="$work" pkg-config --cflags --libs xos-jemalloc)
    # shellcheck disable=SC2086
    g++ -std=c++20 "$work/consumer/heap.cpp" -o "$work/heap" $flags
    [[ $(LD_LIBRARY_PATH=$libdir "$work/heap") == "in the arena" ]]
    echo "xos::jemalloc and pkg-config xos-jemalloc: ok"
fi

[[ $("$work/usr/bin/xos" run -- echo from the cell) == "from the cell" ]]
[[ $("$work/usr/bin/xos" run --loader=own -- echo from the cell) == "from the cell" ]]
echo "installed xos run: ok"
