// The program may compute for long without a call, and what it has written to a socket must not wait so long. A timer
// of the thread's interrupts the guest. Its signal is SIGTRAP, whose handler in the kernel is libxos's in any case; the
// trampoline knows it by its value.
#include "libxos/base/raw_syscall.hpp"
#include "libxos/loops/loops.hpp"
#include "libxos/trap/hop.hpp"

namespace xos::loops {

using base::as_long;
using base::raw_syscall;
using cell::context;

namespace {

/// What is written is late by twice as much at most: a turn may have begun just before the signal.
constexpr long interval_nanoseconds = 1'000'000;

/// struct sigevent and itimerspec (Linux, include/uapi/asm-generic/siginfo.h, linux/time_types.h).
struct signal_event {
    std::uint64_t value;
    std::int32_t signal, notify, thread;
    std::int32_t rest[11];
};
static_assert(sizeof(signal_event) == 64);
struct timer_setting {
    std::int64_t interval[2], value[2];
};

void set(context& c, long nanoseconds) {
    const timer_setting setting{{0, nanoseconds}, {0, nanoseconds}};
    raw_syscall(__NR_timer_settime, c.loop.timer, 0, as_long(&setting), 0);
}

bool make_timer(context& c) {
    constexpr long monotonic = 1;          // CLOCK_MONOTONIC
    constexpr std::int32_t to_thread = 4;  // SIGEV_THREAD_ID
    const signal_event event{
        cell::timer_value, cell::sig_trap, to_thread, static_cast<std::int32_t>(c.thread.id), {}};
    int number;
    if (raw_syscall(__NR_timer_create, monotonic, as_long(&event), as_long(&number)) != 0)
        return false;
    c.loop.timer = number;
    return true;
}

bool is_blocked() {
    std::uint64_t mask = 0;
    raw_syscall(__NR_rt_sigprocmask, 0, 0, as_long(&mask), 8);
    return mask & cell::bit_of(cell::sig_trap);
}

}  // namespace

bool start_timer(context& c) {
    if (c.loop.timer_runs) return true;
    if (is_blocked() || (c.loop.timer < 0 && !make_timer(c))) return false;
    c.loop.timer_runs = true;
    set(c, interval_nanoseconds);
    return true;
}

void stop_timer(context& c) {
    if (!c.loop.timer_runs) return;
    set(c, 0);
    c.loop.timer_runs = false;
    // If signals are blocked, its signal may be waiting already, and one of the program's, too.
    const std::uint64_t wanted = cell::bit_of(cell::sig_trap), at_once[2] = {0, 0};
    cell::queued_signal waiting{cell::sig_trap, {}}, theirs;
    while (raw_syscall(__NR_rt_sigtimedwait, as_long(&wanted), as_long(&waiting.info),
                       as_long(at_once), 8) == cell::sig_trap) {
        if (!cell::is_of_timer(waiting.number, waiting.info)) theirs = waiting;
    }
    if (theirs.number) trap::queue_for_linux(c, theirs);
    c.loop.timer_came = 0;
    c.stop_at_once(c.signals.pending);
}

void before_hop(context& c) {
    // The program may go on for long without a call.
    end_turn(c);
    stop_timer(c);
}

void delete_timer(context& c) {
    stop_timer(c);
    if (c.loop.timer >= 0) raw_syscall(__NR_timer_delete, c.loop.timer);
    c.loop.timer = -1;
}

void on_timer(context& c) {
    c.loop.timer_came = 0;
    c.stop_at_once(c.signals.pending);
    if (c.loop.seen_by_timer) end_turn(c);
    c.loop.seen_by_timer = true;
}

}  // namespace xos::loops
