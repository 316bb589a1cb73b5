#include "libxos/base/errno.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/table.hpp"
#include "libxos/syscall/vector.hpp"

namespace xos::syscall {

long vector(cell::context& c, const std::uint64_t* a) {
    xos_call call;
    if (a[1] == 0) return 0;
    if (a[1] > XOS_VECTOR_MAX) return -base::error::inval;
    if (!copy_in(&call, a[0], sizeof call)) return -base::error::fault;
    call.number = static_cast<std::uint32_t>(call.number);  // as Linux interprets it
    if (call.number == XOS_NR_VECTOR || emulation_of(call.number)) {
        call.result = -base::error::nosys;
    } else {
        call.result =
            forward(c, call.number, reinterpret_cast<const std::uint64_t*>(call.arguments));
        if (c.stop.where == cell::position::taken_back) return 0;
        c.statistics.forwarded[call.number < table_size ? call.number : table_size - 1]++;
    }
    const auto result = a[0] + offsetof(xos_call, result);
    return copy_out(result, &call.result, sizeof call.result) ? 1 : -base::error::fault;
}

}  // namespace xos::syscall
