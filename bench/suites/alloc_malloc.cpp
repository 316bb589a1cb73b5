// Small objects: malloc in steady state, which hardly ever needs memory from anybody.
#include "bench/harness.hpp"
#include "bench/suites/alloc_loops.hpp"
#include "bench/suites/allocators.hpp"
#include "bench/suites/mimalloc.hpp"

namespace xos::bench {

namespace {

const registration rows[] = {
    registration(
        {.suite = "alloc",
         .name = "malloc-small",
         .note = "free and malloc, 16 to 511 bytes; jemalloc, inside on an arena",
         .linux_way = small_objects<jemalloc>(place::own_process),
         .xos_way = small_objects<jemalloc, put_jemalloc_on_arena>(place::own_cell),
         .counted_operations = 4000,
         .others = {{"glibc", small_objects<glibc>(place::own_process)}, mimalloc<small_loop>()}}),
    registration({.suite = "alloc",
                  .name = "malloc-small-glibc",
                  .note = "the same; glibc",
                  .linux_way = small_objects<glibc>(place::own_process),
                  .xos_way = small_objects<glibc>(place::own_cell),
                  .counted_operations = 4000}),
    registration(
        {.suite = "alloc",
         .name = "malloc-mix",
         .note = "malloc, a realloc every fourth time, another thread's free; jemalloc, "
                 "inside on an arena",
         .linux_way = mixed_objects<jemalloc>(place::own_process),
         .xos_way = mixed_objects<jemalloc, put_jemalloc_on_arena>(place::own_cell),
         .counted_operations = 8192,
         .others = {{"glibc", mixed_objects<glibc>(place::own_process)}, mimalloc<mixed_loop>()},
         .processors = 2}),
    registration({.suite = "alloc",
                  .name = "malloc-mix-glibc",
                  .note = "the same; glibc",
                  .linux_way = mixed_objects<glibc>(place::own_process),
                  .xos_way = mixed_objects<glibc>(place::own_cell),
                  .counted_operations = 8192,
                  .processors = 2}),
};

}  // namespace

}  // namespace xos::bench
