// A program that limits its own system calls (seccomp) continues natively, for good: a filter would
// also see the calls that libxos makes for it, and few filters allow KVM_RUN.
//
// Linux takes over everything that libxos has kept: handlers, the alternate stack, the break, the
// rights to memory of the arena. Then the thread returns to its SYSCALL instruction in host mode.
// With several threads inside this is not possible: Linux then carries the call out like any other.
#include <linux/prctl.h>
#include <linux/seccomp.h>

#include "libxos/arch/cpu.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::syscall {

using cell::context;
using cell::position;
using cell::the_cell;

namespace {

void give_handlers_back(const context& c) {
    for (int s = 1; s <= cell::signal_count; s++) {
        if (s == cell::sig_kill || s == cell::sig_stop) continue;
        base::raw_syscall(__NR_rt_sigaction, s, base::as_long(&c.signals.actions->of[s]), 0, 8);
    }
}

/// Returns if the call must be carried out here after all, or made again after a signal.
void leave_for_good(context& c) {
    // Only a program that does not know of libxos can run without it.
    if (!the_cell.program.native_children || c.thread.shares_memory_only ||
        !cell::only_thread_inside())
        return;
    c.stop.where = position::taken_back;
    std::uint64_t mask;
    if (!hold_application(c, mask)) return;
    c.signals.mask = mask;
    const std::uint64_t fs = guest_fs(c);
    if (the_cell.reports.at_exit) {
        const memory::held guard(memory::the_locks.reporting);
        the_cell.reports.at_exit("leave");
    }
    the_cell.hooks.show_memory();
    the_cell.hooks.leaving(c);
    the_cell.descriptor_limit.make_real();
    cell::leave_parent(&c);  // the VM's own threads, too, which Linux would wait for at the end
    the_cell.descriptors.close_all();
    give_handlers_back(c);
    arch::write_fs_base(fs);
    arch::write_gs_base(c.thread.host_gs_base);
    trap::leave_natively(c, c.saved);
}

/// A filter has its say about every call of the process from now on. Without a program there is
/// none: that asks what Linux can do.
long restrict(context& c, std::uint64_t number, const std::uint64_t* a, std::uint64_t program) {
    leave_for_good(c);
    if (c.stop.where == position::taken_back) return 0;
    if (program) answer_outside(served::identity);
    return forward(c, number, a);
}

}  // namespace

long seccomp(context& c, const std::uint64_t* a) {
    const auto operation = static_cast<std::uint32_t>(a[0]);
    if (operation == SECCOMP_SET_MODE_STRICT || operation == SECCOMP_SET_MODE_FILTER)
        return restrict(c, __NR_seccomp, a, a[2]);
    return forward(c, __NR_seccomp, a);
}

long prctl(context& c, const std::uint64_t* a) {
    const auto option = static_cast<std::uint32_t>(a[0]);
    if (option == PR_SET_SECCOMP) return restrict(c, __NR_prctl, a, a[2]);
    if (option == PR_SET_VMA) return name_memory(c, a);
    if (option == PR_SET_TSC && a[1] == PR_TSC_SIGSEGV) {
        report_refusal(__NR_prctl, "prctl(PR_SET_TSC, PR_TSC_SIGSEGV)",
                       "the guest reads the time stamp counter itself");
        return -base::error::inval;
    }
    return forward(c, __NR_prctl, a);
}

}  // namespace xos::syscall
