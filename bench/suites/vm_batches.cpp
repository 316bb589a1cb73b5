// Edits of many pages at once, and a look at one.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "bench/clock.hpp"
#include "bench/harness.hpp"
#include "bench/suites/vm_pages.hpp"

namespace xos::bench {

namespace {

std::uint64_t region;
vm::batch changes;

// ---- every second page. What counts is taking the permission away, which needs a flush; giving it
// back does not count on either side.

constexpr std::uint64_t scattered = 512;

template <class Protect>
std::uint64_t protect_scattered(std::uint64_t operations, Protect&& protect) {
    std::uint64_t spent = 0;
    while (operations) {
        const std::uint64_t pages = operations < scattered ? operations : scattered;
        const std::uint64_t start = ticks();
        protect(pages, false);
        spent += ticks() - start;
        protect(pages, true);
        operations -= pages;
    }
    return spent;
}

std::uint64_t protect_region(std::uint64_t operations) {
    return protect_scattered(operations, [](std::uint64_t pages, bool writable) {
        for (std::uint64_t i = 0; i < pages; i++) {
            mprotect(reinterpret_cast<void*>(region + 2 * i * page_size), page_size,
                     writable ? PROT_READ | PROT_WRITE : PROT_READ);
        }
    });
}

std::uint64_t protect_view(std::uint64_t operations) {
    const gva begin = mapped_pages();
    return protect_scattered(operations, [begin](std::uint64_t pages, bool writable) {
        changes.clear();
        for (std::uint64_t i = 0; i < pages; i++) {
            changes.protect(begin + 2 * i * page_size, page_size,
                            writable ? vm::access::read_write : vm::access::read);
        }
        check(changes.commit());
    });
}

const registration scattered_pages({
    .suite = "vm",
    .name = "protect-scattered-512",
    .note =
        "a page of 512, every second of a range, made read-only by one batch; Linux: mprotect()",
    .linux_way = side{.where = place::outside,
                      .setup = [] { region = linux_pages(2 * scattered); },
                      .measure = protect_region,
                      .teardown = [] { unmap_linux(region, 2 * scattered); }},
    .xos_way = {.where = place::inside,
                .setup = [] { (void)mapped_pages(); },
                .measure = protect_view},
    .counted_operations = 2 * scattered,
});

// ---- there and back again

constexpr std::uint64_t moved = 64;
constexpr std::size_t moved_bytes = moved * page_size;
std::uint64_t other_region;

void move_region(std::uint64_t operations) {
    for (; operations; operations--) {
        mremap(reinterpret_cast<void*>(region), moved_bytes, moved_bytes,
               MREMAP_MAYMOVE | MREMAP_FIXED, reinterpret_cast<void*>(other_region));
        std::swap(region, other_region);
    }
}

void move_in_view(std::uint64_t operations) {
    gva from = mapped_pages(), to = empty_pages();
    for (; operations; operations--) {
        changes.clear();
        changes.move(from, moved_bytes, to);
        check(changes.commit());
        std::swap(from, to);
    }
    if (from == mapped_pages()) return;
    changes.clear();
    changes.move(from, moved_bytes, to);
    check(changes.commit());
}

const registration moving({
    .suite = "vm",
    .name = "remap",
    .note = "64 pages to another address; Linux: mremap()",
    .linux_way = side{.where = place::outside,
                      .setup =
                          [] {
                              region = linux_pages(moved);
                              other_region = linux_pages(moved);
                          },
                      .run = move_region,
                      .teardown =
                          [] {
                              unmap_linux(region, moved);
                              unmap_linux(other_region, moved);
                          }},
    .xos_way = {.where = place::inside, .setup = [] { (void)mapped_pages(); }, .run = move_in_view},
    .counted_operations = 20,
});

// ---- what is mapped where

int pagemap = -1;

void query_linux(std::uint64_t operations) {
    for (; operations; operations--) {
        std::uint64_t entry;
        (void)!pread(pagemap, &entry, sizeof entry, static_cast<off_t>(region / page_size * 8));
        asm volatile("" : : "r"(entry));
    }
}

void query_view(std::uint64_t operations) {
    for (; operations; operations--) {
        const auto found = vm::query(mapped_pages());
        asm volatile("" : : "r"(&found) : "memory");
    }
}

const registration querying({
    .suite = "vm",
    .name = "query",
    .note = "what a page is mapped to; Linux: /proc/self/pagemap",
    .linux_way = side{.where = place::outside,
                      .setup =
                          [] {
                              region = linux_pages(1);
                              pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
                              if (pagemap < 0) {
                                  throw std::system_error(errno, std::system_category(),
                                                          "/proc/self/pagemap");
                              }
                          },
                      .run = query_linux,
                      .teardown =
                          [] {
                              close(pagemap);
                              unmap_linux(region, 1);
                          }},
    .xos_way = {.where = place::inside, .setup = [] { (void)mapped_pages(); }, .run = query_view},
});

}  // namespace

}  // namespace xos::bench
