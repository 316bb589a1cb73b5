// Where Linux writes a signal frame, and whether it should be allowed to.
#include "libxos/trap/hop.hpp"

namespace xos::trap {

using cell::context;
using cell::kernel_stack;
using cell::the_cell;

namespace {

/// As in Linux, arch/x86/kernel/signal.c, get_sigframe: the extended state, below it the rest.
struct extent {
    std::uint64_t begin, end;
};
extent frame_of(const context& c, std::uint64_t rsp, int signal) {
    constexpr std::uint64_t magic2 = 4, state_alignment = 64, frame_alignment = 16;
    constexpr std::uint64_t rest =
        sizeof(std::uint64_t) + sizeof(cell::kernel_ucontext) + sizeof(cell::kernel_siginfo);
    const kernel_stack& other = c.signals.alternate;
    const bool wanted = c.signals.actions->of[signal].flags & cell::sa::onstack;
    const bool disarms = static_cast<std::uint32_t>(other.flags) & cell::ss::autodisarm;
    const bool there = !disarms && rsp > other.base && rsp - other.base <= other.size;
    const std::uint64_t end = wanted && !(other.flags & cell::ss::disable) && !there
                                  ? other.base + other.size
                                  : rsp - XOS_RED_ZONE;
    const std::uint64_t state = (end - the_cell.caps.xsave_size - magic2) & ~(state_alignment - 1);
    return {((state - rest) & ~(frame_alignment - 1)) - sizeof(std::uint64_t), end};
}

}  // namespace

void refuse_frame_as_the_guest(context& c, std::uint64_t rsp, int signal) {
    constexpr int protection_write = 2;
    const extent frame = frame_of(c, rsp, signal);
    for (std::uint64_t at = frame.begin & ~(page_size - 1); at < frame.end; at += page_size) {
        const cell::refusal why = the_cell.hooks.why_refused(at);
        if (!why.owned || (why.mapped && why.protection & protection_write)) continue;
        c.hop.concealed = the_cell.hooks.conceal(at);
        return;
    }
}

}  // namespace xos::trap
