// The ways in which the application's system calls reach Linux: each is a cell::call_transport, and
// has a file here. syscall/ makes every forwarded call by the one that the cell has chosen.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::forward {

extern const cell::call_transport exit_transport, module_transport;

/// Makes the calls of a vector by one exit, also what another transport has left over. Most calls
/// that libxos carries out itself are answered with -ENOSYS: they cannot be in a vector.
long calls_by_exit(cell::context& c, const std::uint64_t* arguments);

/// Whether a vector may have the call. Those that libxos carries out itself can if they return to
/// their caller, and move neither the thread nor the memory that kernel-side code answers for.
bool may_be_in_vector(std::uint64_t number);

// The cell's hooks.
base::outcome choose_transport(transport wanted);
void on_interrupted(cell::context& c);

}  // namespace xos::forward
