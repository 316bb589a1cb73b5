// Large blocks, touched: what counts is where their pages come from.
#include "bench/harness.hpp"
#include "bench/suites/alloc_loops.hpp"
#include "bench/suites/allocators.hpp"
#include "bench/suites/mimalloc.hpp"

namespace xos::bench {

namespace {

using enum place;

const registration rows[] = {
    registration(
        {.suite = "alloc",
         .name = "large-churn",
         .note = "blocks of 1, 2, ... 64 MiB, touched; glibc, an arena",
         .linux_way = large_blocks<glibc>(own_process),
         .xos_way = large_blocks<extents, make_pool>(own_cell),
         .counted_operations = 2,
         .others = {{"jemalloc", large_blocks<jemalloc>(own_process)},
                    mimalloc<large_loop>(),
                    {"mmap, huge pages", large_blocks<mappings>(own_process)},
                    {"glibc that keeps all", large_blocks<glibc, keep_all_memory>(own_process)}},
         .most_rounds = 21}),
    registration({.suite = "alloc",
                  .name = "large-churn-jemalloc",
                  .note = "the same; glibc, jemalloc inside on an arena",
                  .linux_way = large_blocks<glibc>(own_process),
                  .xos_way = large_blocks<jemalloc, put_jemalloc_on_arena>(own_cell),
                  .counted_operations = 2,
                  .others = {{"jemalloc", large_blocks<jemalloc>(own_process)}},
                  .most_rounds = 21}),
    registration({.suite = "alloc",
                  .name = "large-churn-glibc",
                  .note = "the same; glibc, which inside has the process's arena",
                  .linux_way = large_blocks<glibc>(own_process),
                  .xos_way = large_blocks<glibc>(own_cell),
                  .counted_operations = 2,
                  .most_rounds = 21}),
    registration(
        {.suite = "alloc",
         .name = "alloc-p999",
         .note = "99.9th percentile: one of 64 blocks of 8 KiB to 4 MiB replaced and touched, "
                 "beside a busy thread; glibc, an arena, resident",
         .linux_way = latencies<glibc>(own_process),
         .xos_way = latencies<extents, make_populated_pool>(own_cell),
         .counted_operations = 1,
         .others = {{"jemalloc", latencies<jemalloc>(own_process)},
                    mimalloc<latency_loop>(1),
                    {"mmap, huge pages", latencies<mappings>(own_process)},
                    {"glibc that keeps all", latencies<glibc, keep_all_memory>(own_process)}},
         .most_rounds = 11,
         .processors = 2}),
    registration({.suite = "alloc",
                  .name = "alloc-p999-jemalloc",
                  .note = "the same; glibc, jemalloc inside on an arena, resident",
                  .linux_way = latencies<glibc>(own_process),
                  .xos_way = latencies<jemalloc, put_jemalloc_on_populated_arena>(own_cell),
                  .counted_operations = 1,
                  .others = {{"jemalloc", latencies<jemalloc>(own_process)}},
                  .most_rounds = 11,
                  .processors = 2}),
    registration({.suite = "alloc",
                  .name = "alloc-p999-glibc",
                  .note = "the same; glibc, which inside has the process's arena",
                  .linux_way = latencies<glibc>(own_process),
                  .xos_way = latencies<glibc>(own_cell),
                  .counted_operations = 1,
                  .most_rounds = 11,
                  .processors = 2}),
};

}  // namespace

}  // namespace xos::bench
