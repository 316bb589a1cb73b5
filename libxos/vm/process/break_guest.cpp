#include <linux/mman.h>

#include "libxos/arch/guest_area.hpp"
#include "libxos/vm/process/anonymous_edits.hpp"
#include "libxos/vm/process/break.hpp"

namespace xos::vm {

namespace {

using anonymous::lock;
using anonymous::round_up;

/// So much stays above the break: glibc cuts its heap by 64 MiB when it has seen large blocks come
/// and go, and Linux's break is ahead by half of that.
constexpr std::uint64_t kept = std::uint64_t{128} << 20;
/// From this size on it is faster to let Linux take the pages and provide new ones on first touch.
constexpr std::uint64_t many = std::uint64_t{4} << 20;

enum class step { done, more_room, by_linux };

/// Called under the lock.
step move_break(program_break& heap, std::uint64_t wanted) {
    /// Linux maps nothing below this address: a lower `wanted` only asks for the break.
    constexpr std::uint64_t least = 65536;
    if (!heap.known) return step::more_room;
    if (wanted == heap.current || wanted < least) return step::done;
    if (heap.is_linux || wanted < heap.begin) return step::by_linux;
    if (wanted > heap.linux_break) return step::more_room;
    if (heap.linux_break - wanted > kept) return step::by_linux;
    const std::uint64_t from = round_up(heap.current), to = round_up(wanted);
    heap.current = wanted;
    const std::uint64_t dirty = to < heap.used_end ? to : heap.used_end;
    if (dirty > from) {
        const gva begin{from};
        if (dirty - from < many ||
            anonymous::ask_linux(__NR_madvise, from, dirty - from, MADV_DONTNEED) != 0)
            zero_memory(begin, dirty - from);
    }
    if (to > heap.used_end) heap.used_end = to;
    return step::done;
}

}  // namespace

void leave_break_to_linux(std::uint64_t address, std::uint64_t length) {
    {
        memory::guest_edit editing(lock());
        if (the_break.is_linux || !the_break.contains(address, length)) return;
        the_break.is_linux = true;
    }
    arch::in_host_from_kernel(settle_break);
}

}  // namespace xos::vm

extern "C" long xos_brk(std::uint64_t wanted) {
    using namespace xos;
    using namespace xos::vm;
    program_break& heap = the_break;
    bool asked = false;
    for (;;) {
        step next;
        std::uint64_t current;
        {
            memory::guest_edit editing(lock());
            next = move_break(heap, wanted);
            current = heap.current;
        }
        if (next == step::done) return static_cast<long>(current);
        if (next == step::by_linux) {
            arch::in_host_from_kernel([=] { set_linux_break(wanted); });
            memory::guest_edit editing(lock());
            return static_cast<long>(heap.current);
        }
        // Linux has refused once and would refuse again.
        if (asked) return static_cast<long>(current);
        asked = heap.known;
        arch::in_host_from_kernel([=] { extend_break(wanted); });
    }
}
