// What a forwarded call names is looked at first: descriptors of libxos's, which the program does
// not have, and memory of the process arena that the guest may not touch, although Linux could.
//
// Where a buffer begins in such memory, Linux gets an address at which nobody has any. Where only a
// later page is such, or where what is named is a range, Linux is told to refuse that page for the
// time of the call: it then finds in its own order what is wrong, and does what comes before.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::syscall {

/// Makes the call, the number and six arguments, for the application; cell::taken_back if a signal
/// comes first.
long forward_call(cell::context& c, const std::uint64_t* call);

}  // namespace xos::syscall
