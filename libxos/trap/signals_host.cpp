// A signal arrives while a thread is in the cell.
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/stubs.hpp"
#include "libxos/trap/hop.hpp"
#include "libxos/trap/signals.hpp"

extern "C" {
extern const char xos_forward_check[], xos_forward_insn[], xos_forward_taken_back[];
}

namespace xos::trap {

using base::as_long;
using base::raw_syscall;
using cell::context;
using cell::the_cell;

namespace {

bool raised_by_fault(int signal, const cell::kernel_siginfo& info) {
    constexpr int from_kernel = 0x80;
    return (signal == cell::sig_segv || signal == cell::sig_bus || signal == cell::sig_ill ||
            signal == cell::sig_fpe) &&
           info.code > 0 && info.code != from_kernel;
}

}  // namespace

void queue_for_linux(context& c, const cell::queued_signal& s) {
    raw_syscall(__NR_rt_tgsigqueueinfo, raw_syscall(__NR_getpid), c.thread.id, s.number,
                as_long(&s.info));
}

void forget_waiting(context& c) {
    c.signals.pending = 0;
    c.stop_at_once(false);
}

void on_signals(context& c) {
    arch::general_registers r;
    const cell::queued_signal s = c.signals.waiting;
    if (!cell::application_registers(c, r)) {
        // Kernel-side code runs on to its next poll; the guest is re-entered with the signal
        // waiting.
        cell::request_poll(c);
        c.stop_at_once(false);
        return;
    }
    forget_waiting(c);
    cell::clear_poll(c);
    deliver(c, r, s);
    // The action has changed meanwhile: the call that gave way is made after all.
    if (c.stop.where == cell::position::taken_back) cell::resume_at(c, r);
    leave_to_default(c, s);
    set_mask(c.signals.mask);
}

void leave_to_default(context& c, const cell::queued_signal& s) {
    auto& lock = c.signals.actions->lock;
    lock.lock();
    const std::uint64_t handler = c.signals.actions->of[s.number].handler;
    // The kernel's handler may be libxos's: for SIGTRAP, and for faults that handlers want.
    if (handler == 0) set_default_action(s.number);
    // A signal that has a handler again is an ordinary one.
    if (handler != 1) queue_for_linux(c, s);
    lock.unlock();
}

void on_leaving(context& c) {
    // All signals are blocked, and GS says "outside" again: Linux delivers to the handler directly.
    if (c.signals.pending) {
        queue_for_linux(c, c.signals.waiting);
        forget_waiting(c);
    }
    if (!(c.signals.alternate.flags & cell::ss::disable)) {
        raw_syscall(__NR_sigaltstack, as_long(&c.signals.alternate), 0);
    }
}

}  // namespace xos::trap

extern "C" {

/// Runs in the trampoline, on the loop stack, every signal blocked. It only records the signal; the
/// run loop delivers it. Until then the kernel keeps all others: the mask stays full after the
/// return.
void xos_record_signal(int signal, const xos::cell::kernel_siginfo* info,
                       xos::cell::kernel_ucontext* u, xos::cell::context* c) {
    using namespace xos;
    if (trap::raised_by_fault(signal, *info)) {
        cell::die_in_host(c, signal, *info, *u);
    }
    if (cell::is_of_timer(signal, *info)) {
        c->loop.timer_came = 1;
        c->stop_at_once(true);
        return;
    }
    c->signals.waiting.number = signal;
    c->signals.waiting.info = *info;
    c->signals.mask = u->mask;
    c->signals.pending = 1;
    c->stop_at_once(true);
    u->mask = ~std::uint64_t{0};
    // A forwarded call that has not begun, or that the kernel would make again after the handler,
    // is taken back: the handler comes first.
    if (u->rip >= cell::address_of(xos_forward_check) &&
        u->rip <= cell::address_of(xos_forward_insn)) {
        u->rip = cell::address_of(xos_forward_taken_back);
    }
}
}
