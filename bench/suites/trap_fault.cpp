// Page faults: the first touch of a page, which Linux serves with a zeroed frame, and a view's
// fault handler with one it has at hand.
#include <sys/mman.h>

#include <cerrno>
#include <system_error>

#include "bench/harness.hpp"
#include "bench/suites/faults_linux.hpp"
#include "bench/suites/trap_fault_handlers.hpp"
#include "bench/suites/vm_handlers.hpp"

namespace xos::bench {

namespace {

constexpr std::uint64_t pages_a_round = 4096, pages_a_view = 65536;  // a view is 256 MiB

void touch(std::uint64_t begin, std::uint64_t operations) {
    for (; operations; operations--, begin += page_size) {
        *reinterpret_cast<volatile char*>(begin) = 1;
    }
}

// ---- Linux

std::uint64_t region;       // of this round
std::uint64_t region_next;  // not touched yet

void map_region() {
    void* at = mmap(nullptr, pages_a_round * page_size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
    madvise(at, pages_a_round * page_size, MADV_NOHUGEPAGE);
    region = region_next = reinterpret_cast<std::uint64_t>(at);
}

void touch_region(std::uint64_t operations) {
    touch(region_next, operations);
    region_next += operations * page_size;
}

void unmap_region() {
    munmap(reinterpret_cast<void*>(region), pages_a_round * page_size);
}

// Its ways to let a handler of the program serve the fault.

void watch_region() {
    map_region();
    fill_when_touched(region, pages_a_round * page_size);
}

void forbid_region() {
    map_region();
    if (mprotect(reinterpret_cast<void*>(region), pages_a_round * page_size, PROT_NONE) != 0)
        throw std::system_error(errno, std::system_category(), "mprotect");
    catch_signal(SIGSEGV, unprotect_by_signal);
}

side by_handler(void (*setup)()) {
    return {
        .where = place::own_process, .setup = setup, .run = touch_region, .most = pages_a_round};
}

// ---- libxos. Nothing is given back: every round goes on where the last one ended.

struct {
    gva next, end;
} view;

trap_registration handler;

void take_pages() {
    if (view.end - view.next >= pages_a_round * page_size) return;
    view.next = vm::reserve(pages_a_view * page_size);
    view.end = view.next + pages_a_view * page_size;
    fill(the_frames);
}

void handle_faults(trap_handler what, handler_registers registers) {
    take_pages();
    handler = on_fault(view.next, pages_a_round * page_size, what, nullptr, registers);
}

void touch_view(std::uint64_t operations) {
    touch(view.next.value, operations);
    view.next = view.next + operations * page_size;
}

void end_handling() {
    handler.reset();
}

const side linux_way{.where = place::outside,
                     .setup = map_region,
                     .run = touch_region,
                     .teardown = unmap_region,
                     .most = pages_a_round};

side in_a_view(void (*setup)()) {
    return {.where = place::inside,
            .setup = setup,
            .run = touch_view,
            .teardown = end_handling,
            .most = pages_a_round};
}

const registration mapping({
    .suite = "trap",
    .name = "fault-map",
    .note = "first touch of a page; libxos maps a frame, Linux also zeroes it",
    .linux_way = linux_way,
    .xos_way = in_a_view([] { handle_faults(map_frame, handler_registers::general_only); }),
});

const registration mapping_with_fpu({
    .suite = "trap",
    .name = "fault-map-fpu",
    .note = "as fault-map, and the handler may use vector registers",
    .linux_way = linux_way,
    .xos_way = in_a_view([] { handle_faults(map_frame, handler_registers::all); }),
});

const registration mapping_zeroed({
    .suite = "trap",
    .name = "fault-map-zero",
    .note = "first touch of a page; both zero it",
    .linux_way = linux_way,
    .xos_way = in_a_view([] { handle_faults(map_zeroed_frame, handler_registers::general_only); }),
    .others = {{"userfaultfd and SIGBUS", by_handler(watch_region), has_missing_faults},
               {"mprotect and SIGSEGV", by_handler(forbid_region)}},
});

}  // namespace

}  // namespace xos::bench
