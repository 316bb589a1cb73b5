// Several calls by one crossing. The application's side is
//
//     syscall(XOS_NR_VECTOR, calls, n)    // kmod/xos_uapi.h: how many have been made
//
// which the kernel module answers; what it leaves comes here.
#pragma once

#include "kmod/xos_uapi.h"
#include "libxos/cell/cell.hpp"

namespace xos::syscall {

/// The first call of the vector, made here. Calls that libxos carries out itself are answered with
/// -ENOSYS: they cannot be in a vector.
long vector(cell::context& c, const std::uint64_t* arguments);

}  // namespace xos::syscall
