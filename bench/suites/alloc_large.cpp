// Large blocks, touched: what counts is where their pages come from.
#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "bench/clock.hpp"
#include "bench/harness.hpp"
#include "bench/suites/allocators.hpp"

namespace xos::bench {

namespace {

void nothing() {}

// ---- Each of 1, 2, 4, ... 64 MiB once, freed when the next one is there.

template <class Malloc>
void churn(std::uint64_t operations) {
    constexpr std::size_t mib = 1 << 20;
    void* last = nullptr;
    std::size_t last_bytes = 0;
    for (; operations; operations--) {
        for (std::size_t bytes = mib; bytes <= 64 * mib; bytes *= 2) {
            void* p = Malloc::allocate(bytes);
            touch(p, bytes);
            if (last) Malloc::free(last, last_bytes);
            last = p;
            last_bytes = bytes;
        }
    }
    if (last) Malloc::free(last, last_bytes);
}

template <class Malloc, void (*Prepare)() = nothing>
constexpr side large_blocks(place where) {
    return {.where = where, .setup = Prepare, .run = churn<Malloc>};
}

// ---- Of 64 blocks any is replaced by one of another size, while the other processor is busy.

constexpr std::size_t samples = 2000;
std::atomic<bool> busy;
std::thread other;

/// Of this process, so that what concerns all its threads costs what it costs.
void load() {
    other = std::thread([] {
        static unsigned long memory[4096];
        for (std::size_t i = 0; busy.load(std::memory_order_relaxed); i++) {
            memory[i % 4096] += i;
            use(memory);
        }
    });
}

template <void (*Prepare)()>
void begin_latencies() {
    Prepare();
    busy = true;
    load();
}
void end_latencies() {
    busy = false;
    other.join();
}

/// The 99.9th percentile of a block's free and the next one's allocation and first touch, times
/// `operations`.
template <class Malloc>
std::uint64_t percentile(std::uint64_t operations) {
    static std::uint64_t taken[samples];
    static struct {
        void* at;
        std::size_t bytes;
    } held[64];
    random_sequence random;
    for (std::uint64_t& t : taken) {
        const std::size_t bytes = random.size(8 << 10, 9);
        auto& slot = held[random.next() % 64];
        const std::uint64_t start = ticks();
        if (slot.at) Malloc::free(slot.at, slot.bytes);
        slot = {Malloc::allocate(bytes), bytes};
        touch(slot.at, bytes);
        t = ticks() - start;
    }
    auto* const nth = taken + samples - 1 - samples / 1000;
    std::nth_element(taken, nth, taken + samples);
    return *nth * operations;
}

template <class Malloc, void (*Prepare)() = nothing>
constexpr side latencies(place where) {
    return {.where = where,
            .setup = begin_latencies<Prepare>,
            .measure = percentile<Malloc>,
            .teardown = end_latencies,
            .most = 1};
}

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
                    {"mmap, huge pages", latencies<mappings>(own_process)},
                    {"glibc that keeps all", latencies<glibc, keep_all_memory>(own_process)}},
         .most_rounds = 11}),
    registration({.suite = "alloc",
                  .name = "alloc-p999-jemalloc",
                  .note = "the same; glibc, jemalloc inside on an arena, resident",
                  .linux_way = latencies<glibc>(own_process),
                  .xos_way = latencies<jemalloc, put_jemalloc_on_populated_arena>(own_cell),
                  .counted_operations = 1,
                  .others = {{"jemalloc", latencies<jemalloc>(own_process)}},
                  .most_rounds = 11}),
    registration({.suite = "alloc",
                  .name = "alloc-p999-glibc",
                  .note = "the same; glibc, which inside has the process's arena",
                  .linux_way = latencies<glibc>(own_process),
                  .xos_way = latencies<glibc>(own_cell),
                  .counted_operations = 1,
                  .most_rounds = 11}),
};

}  // namespace

}  // namespace xos::bench
