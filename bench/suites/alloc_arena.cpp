// What an arena costs when it is nearly full and in pieces, and at its worst.
#include <fmt/core.h>

#include <cstdlib>
#include <stdexcept>
#include <vector>

#include "bench/harness.hpp"
#include "bench/suites/alloc_loops.hpp"
#include "bench/suites/allocators.hpp"

namespace xos::bench {

namespace {

// ---- Extents of 4 KiB to 1 MiB, each power of two as likely as the next, replaced at random while
// three quarters of the arena are allocated. Nothing is touched: the allocators alone.

constexpr std::size_t arena_bytes = std::size_t{512} << 20, wanted_load = arena_bytes / 4 * 3;

struct piece {
    void* at = nullptr;
    std::size_t bytes = 0;
};

template <class Malloc>
struct replacing {
    static inline std::vector<piece> held;
    static inline std::size_t allocated;
    static inline std::uint64_t refused;
    static inline random_sequence random;

    static std::size_t next_size() {
        return (random.size(page_size, 8) + page_size - 1) & ~(page_size - 1);
    }

    static bool add() {
        const std::size_t bytes = next_size();
        void* p = Malloc::allocate(bytes);
        if (!p) return false;
        held.push_back({p, bytes});
        allocated += bytes;
        return true;
    }
    static void drop_one() {
        std::swap(held[random.next() % held.size()], held.back());
        Malloc::free(held.back().at, held.back().bytes);
        allocated -= held.back().bytes;
        held.pop_back();
    }
    static void run(std::uint64_t operations) {
        for (; operations; operations--) {
            drop_one();
            while (allocated < wanted_load && add()) {
            }
            if (allocated < wanted_load) refused++;
        }
    }
    static void prepare() {
        held.reserve(wanted_load / page_size);
        while (allocated < wanted_load) {
            if (!add()) throw std::runtime_error("the arena is full before it is");
        }
        run(20'000);
        refused = 0;
    }
};

void prepare_arena() {
    extents::pool = new memory::arena({.bytes = arena_bytes});
    replacing<extents>::prepare();
}

void look_at_arena() {
    const auto s = extents::pool->statistics();
    std::size_t in_large = 0;
    for (unsigned order = 9; order < s.free_blocks.size(); order++)
        in_large += s.free_blocks[order] * (page_size << order);
    remark(fmt::format(
        "{} allocations refused; of the free memory {:.0f} % in blocks of 2 MiB or more, the "
        "largest {} KiB",
        replacing<extents>::refused,
        100.0 * static_cast<double>(in_large) / static_cast<double>(s.free), s.largest_free >> 10));
}

// ---- The longest way down and up again: 260 KiB, too much for the caches of the vCPUs, of a
// single free block of 1 GiB whose first pages are dirty, so that the rest of each half has to be
// looked at.

constexpr std::size_t uncached = 65 * page_size;

void prepare_one_block() {
    extents::pool = new memory::arena({.bytes = huge_page_size});
    void* first = extents::pool->allocate(uncached);
    if (!first) throw std::runtime_error("a new arena of 1 GiB has no 260 KiB");
    extents::pool->free(first, uncached);
    if (extents::pool->statistics().largest_free != huge_page_size)
        throw std::runtime_error("what is free is not one block");
}

template <class Malloc>
void allocate_and_free(std::uint64_t operations) {
    for (; operations; operations--) {
        void* p = Malloc::allocate(uncached);
        use(p);
        Malloc::free(p, uncached);
    }
}

const registration rows[] = {
    registration(
        {.suite = "alloc",
         .name = "arena-churn",
         .note =
             "one of many extents of 4 KiB to 1 MiB replaced, untouched, in an arena that is three "
             "quarters full; glibc",
         .linux_way = side{.where = place::own_process,
                           .setup = replacing<glibc>::prepare,
                           .run = replacing<glibc>::run},
         .xos_way = {.where = place::own_cell,
                     .setup = prepare_arena,
                     .run = replacing<extents>::run,
                     .teardown = look_at_arena},
         .counted_operations = 200,
         .others = {{"jemalloc",
                     {.where = place::own_process,
                      .setup = replacing<jemalloc>::prepare,
                      .run = replacing<jemalloc>::run}}}}),
    registration(
        {.suite = "alloc",
         .name = "arena-worst",
         .note =
             "260 KiB of one free block of 1 GiB that is not all zero, and back, untouched; glibc",
         .linux_way = side{.where = place::own_process, .run = allocate_and_free<glibc>},
         .xos_way = {.where = place::own_cell,
                     .setup = prepare_one_block,
                     .run = allocate_and_free<extents>},
         .counted_operations = 20}),
};

}  // namespace

}  // namespace xos::bench
