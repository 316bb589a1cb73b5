#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
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
    const std::uint64_t signal = static_cast<std::uint32_t>(a[0]), wanted_at = a[1], old_at = a[2];
    if (a[3] != 8) return -base::error::inval;
    kernel_sigaction wanted;
    if (wanted_at && !copy_in(&wanted, wanted_at, sizeof wanted)) return -base::error::fault;
    if (signal < 1 || signal > cell::signal_count) return -base::error::inval;
    kernel_sigaction& mine = c.signals.actions->of[signal];
    auto& lock = c.signals.actions->lock;
    kernel_sigaction old;
    if (wanted_at) {
        if (signal == cell::sig_kill || signal == cell::sig_stop) return -base::error::inval;
        // Linux keeps only these flags.
        wanted.flags &= cell::sa::known;
        wanted.mask &= ~(cell::bit_of(cell::sig_kill) | cell::bit_of(cell::sig_stop));
        const bool trampoline = wanted.handler > 1 || signal == cell::sig_trap;
        const kernel_sigaction kernel = trampoline ? cell::trampoline_for(wanted) : wanted;
        lock.lock();
        old = mine;
        // The table changes first: the trampoline may run as soon as the kernel has the action.
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
    if (old_at && !copy_out(old_at, &old, sizeof old)) return -base::error::fault;
    return 0;
}

long rt_sigreturn(context& c, const std::uint64_t*) {
    // The stack of steps is unused between steps.
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
}

long sigaltstack(context& c, const std::uint64_t* a) {
    constexpr std::uint64_t smallest = 2048;  // MINSIGSTKSZ
    kernel_stack old = c.signals.alternate;
    const std::uint64_t rsp = c.kernel_area->rsp;
    const bool autodisarm = static_cast<std::uint32_t>(old.flags) & ss::autodisarm;
    const bool on =
        !(old.flags & ss::disable) && !autodisarm && rsp > old.base && rsp - old.base <= old.size;
    if (on) old.flags |= ss::onstack;
    if (a[0]) {
        kernel_stack wanted;
        if (!copy_in(&wanted, a[0], sizeof wanted)) return -base::error::fault;
        if (on) return -base::error::perm;
        const auto kind = static_cast<std::uint32_t>(wanted.flags) & ~ss::autodisarm;
        if (kind & ~static_cast<std::uint32_t>(ss::onstack | ss::disable))
            return -base::error::inval;
        if (kind == (ss::onstack | ss::disable)) return -base::error::inval;
        if (kind & ss::disable) {
            c.signals.alternate = {0, ss::disable, 0, 0};
        } else {
            if (wanted.size < smallest) return -base::error::nomem;
            c.signals.alternate = wanted;
            c.signals.alternate.flags &= ~ss::onstack;
        }
    }
    if (a[1] && !copy_out(a[1], &old, sizeof old)) return -base::error::fault;
    return 0;
}

bool dumps_core(std::uint64_t signal) {
    switch (static_cast<std::uint32_t>(signal)) {
        case cell::sig_quit:
        case cell::sig_ill:
        case cell::sig_abort:
        case cell::sig_bus:
        case cell::sig_fpe:
        case cell::sig_segv:
        case cell::sig_cpu_time:
        case cell::sig_file_size:
        case cell::sig_sys:
            return true;
        default:
            return false;
    }
}

namespace {

/// Whether a signal to this thread is certain to end the process and dump core, if Linux writes
/// core files.
bool ends_process(const context& c, std::uint32_t signal) {
    if (!dumps_core(signal) || c.signals.actions->of[signal].handler != 0) return false;
    std::uint64_t blocked = 0;
    raw_syscall(__NR_rt_sigprocmask, 0, 0, as_long(&blocked), 8);
    return !(blocked & cell::bit_of(static_cast<int>(signal)));
}

/// Sends the signal from where the application is, so that a core dump shows that place: abort(),
/// for example.
long send(context& c, std::uint64_t number, const std::uint64_t* a, bool to_self,
          std::uint32_t signal) {
    if (!to_self || !ends_process(c, signal)) return forward(c, number, a);
    arch::general_registers r;
    c.stop.where = cell::position::taken_back;
    cell::application_registers(c, r);
    trap::show_memory_for_core();
    trap::call_in_host(c, r, static_cast<int>(signal));
    return 0;
}

std::uint64_t own_process() {
    return static_cast<std::uint64_t>(raw_syscall(__NR_getpid));
}

/// Truncates an argument to 32 bits, as Linux does.
std::uint32_t low(std::uint64_t argument) {
    return static_cast<std::uint32_t>(argument);
}

}  // namespace

long kill(context& c, const std::uint64_t* a) {
    // Linux takes the first thread that does not block the signal.
    const bool to_self = low(a[0]) == c.thread.id && c.thread.id == own_process();
    return send(c, __NR_kill, a, to_self, low(a[1]));
}

long tkill(context& c, const std::uint64_t* a) {
    return send(c, __NR_tkill, a, low(a[0]) == c.thread.id, low(a[1]));
}

long tgkill(context& c, const std::uint64_t* a) {
    const bool to_self = low(a[1]) == c.thread.id && low(a[0]) == own_process();
    return send(c, __NR_tgkill, a, to_self, low(a[2]));
}

}  // namespace xos::syscall
