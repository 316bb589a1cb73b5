// A signal has interrupted a call that the kernel module was making. This does what Linux does at
// its own system-call exit (arch/x86/kernel/signal.c, arch_do_signal_or_restart).
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/stubs.hpp"
#include "libxos/forward/transports.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::forward {

using cell::context;
using cell::position;
using cell::taken_back;
using cell::the_cell;
using syscall::copy_in;
using syscall::copy_out;
using syscall::table_size;

namespace {

bool is_restart(long code) {
    return code == -XOS_RESTART_SYS || code == -XOS_RESTART_NO_INTR ||
           code == -XOS_RESTART_NO_HANDLER || code == -XOS_RESTART_BLOCK;
}

/// Whether the call is to be made again from its beginning; if not, `code` becomes its result.
bool made_again(context& c, long& code) {
    if (c.signals.pending) {
        const bool restarts =
            c.signals.actions->of[c.signals.waiting.number].flags & cell::sa::restart &&
            code == -XOS_RESTART_SYS;
        if (restarts || code == -XOS_RESTART_NO_INTR) return true;
        code = -base::error::intr;
        return false;
    }
    // There is no handler: the process was stopped for a while, or the kernel had work for the
    // thread.
    if (code != -XOS_RESTART_BLOCK) return true;
    constexpr std::uint64_t rest[7] = {__NR_restart_syscall};
    code = xos_forward(&c, rest);
    if (code == taken_back) code = -base::error::intr;
    return false;
}

void settle_vector(context& c, arch::guest_area& area) {
    const std::uint64_t made = area.result & ~XOS_VECTOR_INTERRUPTED;
    area.result = made;
    const std::uint64_t at =
        area.arguments[0] + made * sizeof(xos_call) + offsetof(xos_call, result);
    std::int64_t result = 0;
    if (!copy_in(&result, at, sizeof result) || !is_restart(result)) return;
    long code = result;
    if (made_again(c, code)) return;
    result = code;
    if (copy_out(at, &result, sizeof result)) area.result = made + 1;
}

}  // namespace

void on_interrupted(context& c) {
    arch::guest_area& area = *c.kernel_area;
    const bool vector = area.number == XOS_NR_VECTOR &&
                        area.result <= (XOS_VECTOR_INTERRUPTED | XOS_VECTOR_MAX) &&
                        (area.result & XOS_VECTOR_INTERRUPTED);
    auto code = static_cast<long>(area.result);
    if (!vector && !is_restart(code)) return;
    // The kernel never returns these codes, but the application can write what it wants there.
    const auto& stub = the_cell.is_ring3() ? cell::ring3_stub() : cell::flat_stub();
    if (c.cpu.read_registers().rip != stub.done) return;
    c.stop.where = position::system_call;
    c.stop.at_cpl0 = the_cell.is_ring3();
    if (vector) return settle_vector(c, area);
    if (made_again(c, code)) return syscall::on_system_call(c);
    if (area.number < table_size) c.statistics.forwarded[area.number]++;
    area.result = static_cast<std::uint64_t>(code);
}

}  // namespace xos::forward
