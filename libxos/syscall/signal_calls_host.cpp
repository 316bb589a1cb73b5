#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::syscall {

using base::as_long;
using base::raw_syscall;
using cell::context;
using cell::kernel_sigaction;
using cell::kernel_stack;
using cell::kernel_ucontext;
using cell::the_cell;
namespace ss = cell::ss;

long rt_sigaction(context& c, const std::uint64_t* a) {
    const std::uint64_t signal = a[0], wanted_at = a[1], old_at = a[2];
    if (signal < 1 || signal > cell::signal_count || a[3] != 8) return error_inval;
    kernel_sigaction& mine = c.actions->of[signal];
    auto& lock = c.actions->lock;
    kernel_sigaction old;
    if (wanted_at) {
        if (signal == cell::sig_kill || signal == cell::sig_stop) return error_inval;
        kernel_sigaction wanted;
        if (!copy_in(&wanted, wanted_at, sizeof wanted)) return error_fault;
        const bool trampoline = wanted.handler > 1 || signal == cell::sig_trap;
        const kernel_sigaction kernel = trampoline ? cell::trampoline_for(wanted) : wanted;
        lock.lock();
        old = mine;
        // The table first: the trampoline may run as soon as the kernel has it.
        mine = wanted;
        const long r =
            raw_syscall(__NR_rt_sigaction, static_cast<long>(signal), as_long(&kernel), 0, 8);
        if (r) mine = old;
        lock.unlock();
        if (r) return r;
    } else {
        lock.lock_shared();
        old = mine;
        lock.unlock_shared();
    }
    if (old_at && !copy_out(old_at, &old, sizeof old)) return error_fault;
    return 0;
}

long rt_sigreturn(context& c, const std::uint64_t*) {
    // A step's stack is free between steps.
    auto& state = c.step_stack;
    static_assert(sizeof state >= sizeof(kvm::xsave_area));
    constexpr std::uint16_t user_code = 0x33;
    kernel_ucontext u;
    bool readable = copy_in(&u, c.kernel_area->rsp, sizeof u) && (u.cs | 3) == user_code;
    if (readable && u.fpu_state && !copy_in(state, u.fpu_state, the_cell.caps.xsave_size)) {
        readable = copy_in(state, u.fpu_state, arch::xsave_header);
        base::zero_bytes(state + arch::xsave_software, sizeof(std::uint32_t));
    }
    if (readable && trap::return_from_handler(c, u, u.fpu_state ? state : nullptr)) return 0;
    arch::general_registers r;
    c.kernel_area->result = 0;
    cell::application_registers(c, r);
    constexpr int from_kernel = 0x80;
    trap::force(c, r, cell::sig_segv, from_kernel, 0);
    c.where = cell::position::taken_back;  // another signal comes first
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
