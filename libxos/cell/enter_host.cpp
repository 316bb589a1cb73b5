// A thread enters: it takes a context and continues in the guest.
#include "libxos/arch/cpu.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"

namespace xos::cell {

using base::as_long;
using base::outcome;
using base::raw_syscall;
using base::step;

outcome enter_guest() {
    outcome failure;
    context* c = take_context(failure);
    if (!c) return failure;
    raw_syscall(__NR_sigaltstack, 0, as_long(&c->signals.alternate));
    if (c->signals.alternate.flags & ss::onstack) {
        release(*c);
        return {step::on_alternate_stack, base::error::busy};
    }
    c->thread.id = static_cast<std::uint32_t>(raw_syscall(__NR_gettid));
    c->thread.host_gs_base = arch::read_gs_base();
    c->area->fs_base = arch::read_fs_base();
    // From here on a signal is recorded for the guest, and there must be no alternate stack.
    arch::write_gs_base(reinterpret_cast<std::uint64_t>(c));
    if (!(c->signals.alternate.flags & ss::disable)) {
        const kernel_stack off{0, ss::disable, 0, 0};
        raw_syscall(__NR_sigaltstack, as_long(&off), 0);
    }
    xos_switch_to_guest(c);
    // The thread is in the guest. A signal that came in the first instructions has waited until
    // now.
    if (arch::current_area()->pending) arch::poll_guest();
    return base::success;
}

}  // namespace xos::cell
