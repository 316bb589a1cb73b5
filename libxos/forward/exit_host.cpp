// A call leaves the guest by an exit, and its thread makes it in host mode.
#include "kmod/xos_uapi.h"
#include "libxos/base/errno.hpp"
#include "libxos/forward/arguments.hpp"
#include "libxos/forward/transports.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::forward {

using cell::context;
using syscall::copy_in;
using syscall::copy_out;
using syscall::table_size;

long first_call_by_exit(context& c, const std::uint64_t* a) {
    xos_call call;
    if (a[1] == 0) return 0;
    if (a[1] > XOS_VECTOR_MAX) return -base::error::inval;
    if (!copy_in(&call, a[0], sizeof call)) return -base::error::fault;
    call.number = static_cast<std::uint32_t>(call.number);  // as Linux interprets it
    if (call.number == XOS_NR_VECTOR || syscall::emulation_of(call.number)) {
        call.result = -base::error::nosys;
    } else {
        call.result = syscall::forward(c, call.number,
                                       reinterpret_cast<const std::uint64_t*>(call.arguments));
        if (c.stop.where == cell::position::taken_back) return 0;
        c.statistics.forwarded[call.number < table_size ? call.number : table_size - 1]++;
    }
    const auto result = a[0] + offsetof(xos_call, result);
    return copy_out(result, &call.result, sizeof call.result) ? 1 : -base::error::fault;
}

namespace {

base::outcome attach() {
    return base::success;
}

}  // namespace

constinit const cell::call_transport exit_transport = {transport::exit, attach, call_by_exit,
                                                       first_call_by_exit};

}  // namespace xos::forward
