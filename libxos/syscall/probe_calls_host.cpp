// What tracers do to a process: calls that the kernel's own trampolines make, and breakpoints in
// the processor's debug registers.
#include <linux/perf_event.h>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/table.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::syscall {

using cell::context;

namespace {

bool is_own_thread(std::uint64_t argument) {
    const auto id = static_cast<std::int32_t>(argument);
    return id == 0 ||
           (id > 0 && base::raw_syscall(__NR_tgkill, base::raw_syscall(__NR_getpid), id, 0) == 0);
}

}  // namespace

/// Linux checks where this call comes from and changes the caller's registers and stack, so it is
/// made where the application is.
long probe_return(context& c, const std::uint64_t*) {
    arch::general_registers r;
    c.stop.where = cell::position::taken_back;
    cell::application_registers(c, r);
    trap::step_in_host(c, r);
    return 0;
}

/// The debug registers are KVM's while the guest runs.
long perf_event_open(context& c, const std::uint64_t* a) {
    std::uint32_t type = 0;
    const bool of_thread = !(a[4] & PERF_FLAG_PID_CGROUP) && is_own_thread(a[1]);
    if (of_thread && copy_in(&type, a[0], sizeof type) && type == PERF_TYPE_BREAKPOINT) {
        report_refusal(__NR_perf_event_open, "perf_event_open of a hardware breakpoint",
                       "the debug registers do not reach into the guest");
        return -base::error::nospc;
    }
    return forward(c, __NR_perf_event_open, a);
}

}  // namespace xos::syscall
