// Checks what a forwarded call names: libxos's descriptors, which the program does not have, and
// memory of the process arena that the guest may not touch although Linux could.
//
// If a buffer begins in such memory, Linux gets an address where nothing is mapped instead. If only
// a later page is such, or the call names a range, Linux is told to refuse that page during the
// call: it then finds the error in its own order, and does what comes before it.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::syscall {

/// Makes the call (its number and six arguments) for the application; returns cell::taken_back if a
/// signal comes first.
long forward_call(cell::context& c, const std::uint64_t* call);

}  // namespace xos::syscall
