// Becoming a cell, entering, leaving, and the least that an exit costs.
#include <fstream>
#include <string>

#include "bench/clock.hpp"
#include "bench/harness.hpp"
#include "libxos/arch/guest_layout.h"

namespace xos::bench {

namespace {

/// In KiB.
long resident() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;) {
        if (word != "VmRSS:") continue;
        long kib = 0;
        status >> kib;
        return kib;
    }
    return 0;
}

std::uint64_t first_cell(std::uint64_t) {
    const long before = resident();
    const std::uint64_t start_time = ticks();
    start(options_of_cell());
    enter();
    const std::uint64_t spent = ticks() - start_time;
    leave();
    remark(std::to_string(resident() - before) + " KiB more resident");
    return spent;
}

std::uint64_t enter_only(std::uint64_t operations) {
    std::uint64_t spent = 0;
    for (; operations; operations--) {
        const std::uint64_t start_time = ticks();
        enter();
        spent += ticks() - start_time;
        leave();
    }
    return spent;
}

std::uint64_t leave_only(std::uint64_t operations) {
    std::uint64_t spent = 0;
    for (; operations; operations--) {
        enter();
        const std::uint64_t start_time = ticks();
        leave();
        spent += ticks() - start_time;
    }
    return spent;
}

void null_exits(std::uint64_t operations) {
    for (; operations; operations--) {
        asm volatile("outl %%eax, %0" : : "i"(XOS_PORT_NULL), "a"(0) : "memory");
    }
}

const registration starting({
    .suite = "cell",
    .name = "start",
    .note = "start() and the first enter() of a process; waiting counts, too",
    .linux_way = {},
    .xos_way = {.where = place::child, .measure = first_cell},
});

const registration entering({
    .suite = "cell",
    .name = "enter",
    .note = "enter() of a thread that was inside before",
    .linux_way = {},
    .xos_way = {.where = place::outside, .measure = enter_only},
});

const registration leaving({
    .suite = "cell",
    .name = "leave",
    .note = "leave()",
    .linux_way = {},
    .xos_way = {.where = place::outside, .measure = leave_only},
});

const registration empty_exit({
    .suite = "cell",
    .name = "exit-roundtrip",
    .note = "to the run loop and back, for nothing",
    .linux_way = {},
    .xos_way = {.where = place::inside, .run = null_exits},
});

}  // namespace

}  // namespace xos::bench
