#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::syscall {

using base::as_long;
using base::raw_syscall;
using cell::context;
using cell::kernel_sigaction;
using cell::kernel_stack;
using cell::the_cell;
namespace ss = cell::ss;

long rt_sigaction(context&, const std::uint64_t* a) {
    const std::uint64_t signal = a[0], wanted_at = a[1], old_at = a[2];
    if (signal < 1 || signal > cell::signal_count || a[3] != 8) return error_inval;
    kernel_sigaction& mine = the_cell.actions[signal];
    const kernel_sigaction old = mine;
    if (wanted_at) {
        if (signal == cell::sig_kill || signal == cell::sig_stop) return error_inval;
        kernel_sigaction wanted;
        if (!copy_in(&wanted, wanted_at, sizeof wanted)) return error_fault;
        // The table first: the trampoline may run as soon as the kernel has it.
        mine = wanted;
        const bool trampoline = wanted.handler > 1 || signal == cell::sig_trap;
        const kernel_sigaction kernel = trampoline ? cell::trampoline_for(wanted) : wanted;
        if (long r =
                raw_syscall(__NR_rt_sigaction, static_cast<long>(signal), as_long(&kernel), 0, 8)) {
            mine = old;
            return r;
        }
    }
    if (old_at && !copy_out(old_at, &old, sizeof old)) return error_fault;
    return 0;
}

long rt_sigreturn(context& c, const std::uint64_t*) {
    trap::return_from_handler(c, c.kernel_area->rsp);
    return 0;
}

long sigaltstack(context& c, const std::uint64_t* a) {
    constexpr std::uint64_t smallest = 2048;  // MINSIGSTKSZ
    kernel_stack old = c.alternate;
    const std::uint64_t rsp = c.kernel_area->rsp;
    const bool autodisarm = static_cast<std::uint32_t>(old.flags) & ss::autodisarm;
    const bool on =
        !(old.flags & ss::disable) && !autodisarm && rsp > old.base && rsp - old.base <= old.size;
    if (on) old.flags |= ss::onstack;
    if (a[0]) {
        kernel_stack wanted;
        if (!copy_in(&wanted, a[0], sizeof wanted)) return error_fault;
        if (on) return error_perm;
        const auto kind = static_cast<std::uint32_t>(wanted.flags) & ~ss::autodisarm;
        if (kind & ~static_cast<std::uint32_t>(ss::onstack | ss::disable)) return error_inval;
        if (kind == (ss::onstack | ss::disable)) return error_inval;
        if (kind & ss::disable) {
            c.alternate = {0, ss::disable, 0, 0};
        } else {
            if (wanted.size < smallest) return error_nomem;
            c.alternate = wanted;
            c.alternate.flags &= ~ss::onstack;
        }
    }
    if (a[1] && !copy_out(a[1], &old, sizeof old)) return error_fault;
    return 0;
}

}  // namespace xos::syscall
