// Several calls in one crossing. The application calls
//
//     syscall(XOS_NR_VECTOR, calls, n)    // kmod/xos_uapi.h: how many have been made
//
// The kernel module answers it; what the module leaves over comes here.
#pragma once

#include "kmod/xos_uapi.h"
#include "libxos/cell/cell.hpp"

namespace xos::syscall {

/// Makes the first call of the vector. A call that libxos carries out itself is answered with
/// -ENOSYS: it cannot be in a vector.
long vector(cell::context& c, const std::uint64_t* arguments);

}  // namespace xos::syscall
