// Exceptions: the bare way to a handler and back.
#include <ucontext.h>

#include <cerrno>
#include <csignal>
#include <system_error>
#include <xos/trap.hpp>

#include "bench/harness.hpp"

namespace xos::bench {

namespace {

trap_registration handler;
struct sigaction previous;

void catch_signal(int number, void (*action)(int, siginfo_t*, void*)) {
    struct sigaction wanted {};
    wanted.sa_sigaction = action;
    wanted.sa_flags = SA_SIGINFO;
    if (sigaction(number, &wanted, &previous) != 0) {
        throw std::system_error(errno, std::system_category(), "sigaction");
    }
}

void undefined(std::uint64_t operations) {
    for (; operations; operations--) asm volatile("ud2" : : : "memory");
}

void breakpoints(std::uint64_t operations) {
    for (; operations; operations--) asm volatile("int3" : : : "memory");
}

constexpr int ud2_length = 2;

[[gnu::target("general-regs-only")]] verdict skip_ud2(trap_frame& frame, void*) {
    frame.rip += ud2_length;
    return verdict::resume;
}

/// INT3 is a trap: the frame is behind it already.
[[gnu::target("general-regs-only")]] verdict go_on(trap_frame&, void*) {
    return verdict::resume;
}

void skip_ud2_by_signal(int, siginfo_t*, void* context) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += ud2_length;
}

void go_on_by_signal(int, siginfo_t*, void*) {}

const registration trap_only({
    .suite = "trap",
    .name = "trap-only",
    .note = "UD2, skipped by a handler; KVM looks at it first",
    .linux_way = side{.where = place::outside,
                      .setup = [] { catch_signal(SIGILL, skip_ud2_by_signal); },
                      .run = undefined,
                      .teardown = [] { sigaction(SIGILL, &previous, nullptr); }},
    .xos_way = {.where = place::inside,
                .setup =
                    [] {
                        handler = on_exception(exception::invalid_opcode, skip_ud2, nullptr,
                                               handler_registers::general_only);
                    },
                .run = undefined,
                .teardown = [] { handler.reset(); }},
});

const registration breakpoint({
    .suite = "trap",
    .name = "breakpoint",
    .note = "INT3, and a handler that does nothing",
    .linux_way = side{.where = place::outside,
                      .setup = [] { catch_signal(SIGTRAP, go_on_by_signal); },
                      .run = breakpoints,
                      .teardown = [] { sigaction(SIGTRAP, &previous, nullptr); }},
    .xos_way = {.where = place::inside,
                .setup =
                    [] {
                        handler = on_exception(exception::breakpoint, go_on, nullptr,
                                               handler_registers::general_only);
                    },
                .run = breakpoints,
                .teardown = [] { handler.reset(); }},
});

}  // namespace

}  // namespace xos::bench
