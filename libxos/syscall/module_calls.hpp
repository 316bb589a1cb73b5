// What the kernel module is told about each call: whether it may make it, and what of the arguments
// it must look at before. The module looks as forward_call() does (syscall/arguments.hpp), which the
// call comes to if the module finds something or would have to look longer.
#pragma once

#include <array>
#include <cstdint>

#include "kmod/xos_uapi.h"

namespace xos::syscall {

/// xos_attach's list of calls (kmod/xos_uapi.h), made from table.def.
extern const std::array<std::uint32_t, XOS_CALLS> module_calls;

}  // namespace xos::syscall
