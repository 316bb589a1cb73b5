// Signals of threads outside the cell: the trampoline calls the application's handler at once, as
// Linux would have done.
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"

extern "C" void xos_signal_outside(int signal, xos::cell::kernel_siginfo* info,
                                   xos::cell::kernel_ucontext* u) {
    using namespace xos;
    using base::as_long;
    using base::raw_syscall;
    using cell::the_cell;
    const auto set_default = [signal] {
        const cell::kernel_sigaction standard{0, 0, 0, 0};
        raw_syscall(__NR_rt_sigaction, signal, as_long(&standard), 0, 8);
    };
    const cell::kernel_sigaction action = the_cell.actions.of[signal];
    if (action.handler == 1) return;
    if (action.handler == 0) {
        // The handler of SIGTRAP in the kernel is always libxos's: its default action is set now.
        set_default();
        raw_syscall(__NR_rt_tgsigqueueinfo, raw_syscall(__NR_getpid), raw_syscall(__NR_gettid),
                    signal, as_long(info));
        return;
    }
    if (action.flags & cell::sa::resethand) {
        the_cell.actions.of[signal].handler = 0;
        if (signal != cell::sig_trap) set_default();
    }
    std::uint64_t mask = u->mask | action.mask;
    if (!(action.flags & cell::sa::nodefer)) mask |= cell::bit_of(signal);
    raw_syscall(__NR_rt_sigprocmask, 2, as_long(&mask), 0, 8);
    auto* handler = reinterpret_cast<void (*)(int, void*, void*)>(action.handler);
    if (the_cell.call_handler_outside)
        the_cell.call_handler_outside(handler, signal, info, u);
    else
        handler(signal, info, u);
}
