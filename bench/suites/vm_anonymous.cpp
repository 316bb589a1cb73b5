// Anonymous memory by the same calls of libc on both sides: mmap(), a write to every page,
// munmap(). Inside they are served from the process's arena, and what was used before is zeroed as
// by Linux.
#include <sys/mman.h>

#include <thread>
#include <xos/memory.hpp>

#include "bench/harness.hpp"
#include "bench/suites/trap_fault_handlers.hpp"
#include "bench/suites/vm_pages.hpp"

namespace xos::bench {

namespace {

constexpr int read_write = PROT_READ | PROT_WRITE, anonymous = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr std::uint64_t large_pages = large_page_size / page_size;

void one_mapping(void* wish, std::uint64_t pages, int flags) {
    void* at = mmap(wish, pages * page_size, read_write, flags, -1, 0);
    touch(reinterpret_cast<std::uint64_t>(at), pages);
    munmap(at, pages * page_size);
}

template <std::uint64_t Pages, int Flags>
void map_touch_unmap(std::uint64_t operations) {
    for (; operations; operations--) one_mapping(nullptr, Pages, Flags);
}

/// Nothing is to fail unseen: tried once before it is measured.
template <std::uint64_t Pages>
void try_mapping() {
    void* at = mmap(nullptr, Pages * page_size, read_write, anonymous, -1, 0);
    munmap(reinterpret_cast<void*>(mapped(at)), Pages * page_size);
}

template <std::uint64_t Pages, int Flags = anonymous>
constexpr side mappings(place where) {
    return {.where = where, .setup = try_mapping<Pages>, .run = map_touch_unmap<Pages, Flags>};
}

template <std::uint64_t Pages>
registration mapping(const char* name, const char* note, std::uint64_t counted_operations) {
    return registration({
        .suite = "vm",
        .name = name,
        .note = note,
        .linux_way = mappings<Pages>(place::outside),
        .xos_way = mappings<Pages>(place::inside),
        .counted_operations = counted_operations,
        .others = {{"MAP_POPULATE", mappings<Pages, anonymous | MAP_POPULATE>(place::outside)}},
    });
}

const registration small = mapping<1>("map-touch-unmap-4k", "one page, zeroed", 400);
const registration middle = mapping<16>("map-touch-unmap-64k", "16 pages, zeroed", 10);
const registration large =
    mapping<large_pages>("map-touch-unmap-2m", "512 pages, zeroed; Linux by small pages", 4);

// ---- What malloc does for a large block that nobody touches.

template <std::uint64_t Pages>
void map_unmap(std::uint64_t operations) {
    for (; operations; operations--)
        munmap(mmap(nullptr, Pages * page_size, read_write, anonymous, -1, 0), Pages * page_size);
}

template <std::uint64_t Pages>
registration untouched_mapping(const char* name, const char* note) {
    return registration({
        .suite = "vm",
        .name = name,
        .note = note,
        .linux_way =
            side{.where = place::outside, .setup = try_mapping<Pages>, .run = map_unmap<Pages>},
        .xos_way =
            side{.where = place::inside, .setup = try_mapping<Pages>, .run = map_unmap<Pages>},
        .counted_operations = 50,
    });
}

const registration untouched_128m =
    untouched_mapping<64 * large_pages>("map-unmap-128m-untouched", "mmap and munmap, no touch");
const registration untouched_256m =
    untouched_mapping<128 * large_pages>("map-unmap-256m-untouched", "the same, twice as large");

// ---- Linux's best: a large page, which it only takes where the mapping is aligned

std::uint64_t aligned;

void find_aligned() {
    const std::uint64_t room =
        mapped(mmap(nullptr, 2 * large_page_size, PROT_NONE, anonymous, -1, 0));
    munmap(reinterpret_cast<void*>(room), 2 * large_page_size);
    aligned = (room + large_page_size - 1) & ~(large_page_size - 1);
}

void map_large(std::uint64_t operations) {
    auto* const wish = reinterpret_cast<void*>(aligned);
    for (; operations; operations--) {
        void* at = mmap(wish, large_page_size, read_write, anonymous, -1, 0);
        madvise(at, large_page_size, MADV_HUGEPAGE);
        touch(reinterpret_cast<std::uint64_t>(at), large_pages);
        munmap(at, large_page_size);
    }
}

const registration large_with_thp({
    .suite = "vm",
    .name = "map-touch-unmap-2m-large",
    .note = "as before; Linux by one large page (MADV_HUGEPAGE)",
    .linux_way = side{.where = place::outside, .setup = find_aligned, .run = map_large},
    .xos_way = mappings<large_pages>(place::inside),
    .counted_operations = 4,
});

// ---- The same from memory that a thread outside has zeroed beforehand.

constexpr std::uint64_t zeroed_blocks = 32;  // all that the arena has
memory::arena* zeroed;

void prepare_zeroed() {
    zeroed =
        new memory::arena({.bytes = zeroed_blocks * large_page_size, .zero_in_background = true});
    void* blocks[zeroed_blocks];
    for (void*& block : blocks) {
        block = zeroed->allocate(large_page_size);
        touch(reinterpret_cast<std::uint64_t>(block), large_pages);
    }
    for (void* block : blocks) zeroed->free(block, large_page_size);
    while (zeroed->statistics().clean_free < zeroed->statistics().free) std::this_thread::yield();
}

void map_zeroed(std::uint64_t operations) {
    for (; operations; operations--) {
        void* block = zeroed->allocate(large_page_size, memory::contents::zeroed);
        touch(reinterpret_cast<std::uint64_t>(block), large_pages);
        zeroed->free(block, large_page_size);
    }
}

const registration large_zeroed_beforehand({
    .suite = "vm",
    .name = "map-touch-unmap-2m-clean",
    .note = "2 MiB of an arena that a thread outside zeroes, by one large leaf; Linux by one "
            "large page, which it zeroes now",
    .linux_way = side{.where = place::outside, .setup = find_aligned, .run = map_large},
    .xos_way = {.where = place::own_cell,
                .setup = prepare_zeroed,
                .run = map_zeroed,
                .most = 6},  // more and it has to look for a clean one
    .counted_operations = 4,
});

// ---- beside "Dune mode": inside as well, but Linux keeps the memory. An address that is wished
// for is Linux's to give, so such calls are forwarded.

void map_like_dune(std::uint64_t operations) {
    for (; operations; operations--) one_mapping(reinterpret_cast<void*>(aligned), 1, anonymous);
}

const registration beside_dune({
    .suite = "vm",
    .name = "fresh-vs-dune-mode",
    .note = "map-touch-unmap-4k, both inside: the column linux forwards the calls to Linux",
    .linux_way = side{.where = place::inside, .setup = find_aligned, .run = map_like_dune},
    .xos_way = mappings<1>(place::inside),
    .counted_operations = 100,
});

constexpr std::uint64_t pages_a_round = 4096;
std::uint64_t region, next;

void touch_next(std::uint64_t operations) {
    touch(next, operations);
    next += operations * page_size;
}

trap_registration handler;

const registration touch_beside_dune({
    .suite = "vm",
    .name = "touch-vs-dune-mode",
    .note =
        "first touch of a page, both inside: a handler zeroes and maps; in the column linux Linux",
    .linux_way = side{.where = place::inside,
                      .setup =
                          [] {
                              find_aligned();
                              void* at =
                                  mmap(reinterpret_cast<void*>(aligned), pages_a_round * page_size,
                                       read_write, anonymous | MAP_NORESERVE, -1, 0);
                              madvise(at, pages_a_round * page_size, MADV_NOHUGEPAGE);
                              region = next = mapped(at);
                          },
                      .run = touch_next,
                      .teardown = [] { unmap_linux(region, pages_a_round); },
                      .most = pages_a_round},
    .xos_way = {.where = place::inside,
                .setup =
                    [] {
                        fill(the_frames);
                        next = empty_pages().value;
                        handler =
                            on_fault(empty_pages(), pages_a_round * page_size, map_zeroed_frame,
                                     nullptr, handler_registers::general_only);
                    },
                .run = touch_next,
                .teardown =
                    [] {
                        handler.reset();
                        unmap(empty_pages(), pages_a_round);
                    },
                .most = pages_a_round},
});

}  // namespace

}  // namespace xos::bench
