// Checks what a forwarded call names: libxos's descriptors, which the program does not have, and
// memory of the process arena that the guest may not touch although Linux could.
//
// If a buffer begins in such memory, Linux gets an address where nothing is mapped instead. If only
// a later page is such, or the call names a range, Linux is told to refuse that page during the
// call: it then finds the error in its own order, and does what comes before it.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::forward {

/// Makes the call (its number and six arguments) on this thread, in host mode; returns
/// cell::taken_back if a signal comes first.
long call_by_exit(cell::context& c, const std::uint64_t* call);

}  // namespace xos::forward
