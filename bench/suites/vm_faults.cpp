// Protection faults, as garbage collectors, persistent stores and checkpointers use them. Linux's
// way is a signal handler. A fault that maps a page is in the suite `trap`: fault-map.
//
// A. Appel and K. Li, "Virtual memory primitives for user programs", ASPLOS 1991.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <optional>
#include <system_error>
#include <xos/space.hpp>

#include "bench/harness.hpp"
#include "bench/suites/faults_linux.hpp"
#include "bench/suites/vm_handlers.hpp"
#include "bench/suites/vm_pages.hpp"

namespace xos::bench {

namespace {

constexpr std::uint64_t group = 100;  // pages that are protected together

// ---- Linux

std::uint64_t region;
struct sigaction previous;

void protect_region(std::uint64_t pages) {
    mprotect(reinterpret_cast<void*>(region), pages * page_size, PROT_READ);
}

void begin_region() {
    region = linux_pages(group);
    previous = catch_signal(SIGSEGV, unprotect_by_signal);
}

void end_region() {
    sigaction(SIGSEGV, &previous, nullptr);
    unmap_linux(region, group);
}

/// By userfaultfd.
void watch_region() {
    region = linux_pages(group);
    unprotect_when_written(region, group * page_size);
}

void write_protect_region(std::uint64_t pages) {
    write_protect(region, pages * page_size);
}

side by_userfaultfd(void (*run)(std::uint64_t operations)) {
    return {.where = place::own_process, .setup = watch_region, .run = run};
}

// ---- libxos

trap_registration handler;
vm::batch changes;

void handle_faults(gva begin, std::uint64_t pages, trap_handler what) {
    handler = on_fault(begin, pages * page_size, what, nullptr, handler_registers::general_only);
}

void end_handling() {
    handler.reset();
}

// ---- a fault, and nothing else

void write_region(std::uint64_t operations) {
    for (; operations; operations--) write_byte(region);
}

void write_view(std::uint64_t operations) {
    const std::uint64_t page = mapped_pages().value;
    for (; operations; operations--) write_byte(page);
}

const registration trap_only({
    .suite = "vm",
    .name = "trap-only-pf",
    .note = "write to a protected page, skipped by a handler",
    .linux_way = side{.where = place::outside,
                      .setup =
                          [] {
                              region = linux_pages(group);
                              protect_region(1);
                              previous = catch_signal(SIGSEGV, skip_write_by_signal);
                          },
                      .run = write_region,
                      .teardown = end_region},
    .xos_way = {.where = place::inside,
                .setup =
                    [] {
                        check(vm::protect(mapped_pages(), vm::access::read));
                        handle_faults(mapped_pages(), 1, skip_write);
                    },
                .run = write_view,
                .teardown =
                    [] {
                        end_handling();
                        check(vm::protect(mapped_pages(), vm::access::read_write));
                    }},
});

// ---- Appel and Li's two

template <void (*Protect)(std::uint64_t pages)>
void protect_and_write_region(std::uint64_t operations) {
    for (; operations; operations--) {
        Protect(1);
        write_byte(region);
    }
}

void protect_and_write_view(std::uint64_t operations) {
    const gva page = mapped_pages();
    for (; operations; operations--) {
        (void)vm::protect(page, vm::access::read);
        write_byte(page.value);
    }
}

const registration appel1({
    .suite = "vm",
    .name = "appel1",
    .note = "protect a page, write to it, and the handler unprotects it",
    .linux_way = side{.where = place::outside,
                      .setup = begin_region,
                      .run = protect_and_write_region<protect_region>,
                      .teardown = end_region},
    .xos_way = {.where = place::inside,
                .setup = [] { handle_faults(mapped_pages(), 1, unprotect_page); },
                .run = protect_and_write_view,
                .teardown = end_handling},
    .others = {{"userfaultfd and SIGBUS",
                by_userfaultfd(protect_and_write_region<write_protect_region>), has_write_faults}},
});

template <void (*Protect)(std::uint64_t pages)>
void protect_group_of_region(std::uint64_t operations) {
    while (operations) {
        const std::uint64_t pages = std::min(operations, group);
        Protect(pages);
        for (std::uint64_t i = 0; i < pages; i++) write_byte(region + i * page_size);
        operations -= pages;
    }
}

void protect_group_of_view(std::uint64_t operations) {
    const gva begin = mapped_pages();
    while (operations) {
        const std::uint64_t pages = std::min(operations, group);
        changes.clear();
        changes.protect(begin, pages * page_size, vm::access::read);
        check(changes.commit());
        for (std::uint64_t i = 0; i < pages; i++) write_byte(begin.value + i * page_size);
        operations -= pages;
    }
}

const registration appel2({
    .suite = "vm",
    .name = "appel2",
    .note = "a page of 100 that are protected together, each unprotected when written to",
    .linux_way = side{.where = place::outside,
                      .setup = begin_region,
                      .run = protect_group_of_region<protect_region>,
                      .teardown = end_region},
    .xos_way = {.where = place::inside,
                .setup = [] { handle_faults(mapped_pages(), group, unprotect_page); },
                .run = protect_group_of_view,
                .teardown = end_handling},
    .others = {{"userfaultfd and SIGBUS",
                by_userfaultfd(protect_group_of_region<write_protect_region>), has_write_faults}},
});

// ---- copy on write

constexpr std::uint64_t pages_a_round = 2048;
std::uint64_t next;  // not written yet

void write_pages(std::uint64_t operations) {
    touch(next, operations);
    next += operations * page_size;
}

/// Pages of a file, each read once, so that only the copy is left to do.
void map_file() {
    static const int file = [] {
        const int fd = memfd_create("xos-bench", MFD_CLOEXEC);
        if (fd < 0 || ftruncate(fd, pages_a_round * page_size) != 0)
            throw std::system_error(errno, std::system_category(), "memfd_create");
        return fd;
    }();
    void* whole =
        mmap(nullptr, pages_a_round * page_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    touch(mapped(whole), pages_a_round);
    unmap_linux(mapped(whole), pages_a_round);
    region = next = mapped(
        mmap(nullptr, pages_a_round * page_size, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0));
    for (std::uint64_t i = 0; i < pages_a_round; i++)
        (void)*reinterpret_cast<volatile char*>(region + i * page_size);
}

/// Frames of their own behind pages of a view, and a second address space that has them, too.
gva pages_to_copy() {
    static const gva view = vm::reserve(pages_a_round * page_size);
    return view;
}
std::optional<space> snapshot;

void take_snapshot() {
    changes.clear();
    changes.map_new(pages_to_copy(), pages_a_round * page_size, vm::access::read_write);
    commit(changes);
    snapshot.emplace();
    snapshot->separate(pages_to_copy(), space::frames::copied_on_write);
    next = pages_to_copy().value;
    handle_faults(pages_to_copy(), pages_a_round, copy_page);
}

void drop_snapshot() {
    end_handling();
    snapshot.reset();
    changes.clear();
    changes.unmap_and_free(pages_to_copy(), pages_a_round * page_size);
    commit(changes);
}

const registration copying({
    .suite = "vm",
    .name = "cow",
    .note =
        "write to a page that a snapshot shares, which is copied; Linux: MAP_PRIVATE of a memfd",
    .linux_way = side{.where = place::outside,
                      .setup = map_file,
                      .run = write_pages,
                      .teardown = [] { unmap_linux(region, pages_a_round); },
                      .most = pages_a_round},
    .xos_way = {.where = place::inside,
                .setup = take_snapshot,
                .run = write_pages,
                .teardown = drop_snapshot,
                .most = pages_a_round},
});

}  // namespace

}  // namespace xos::bench
