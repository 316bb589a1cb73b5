// The ways in which the application's system calls reach Linux: each is a cell::call_transport, and
// has a file here. syscall/ makes every forwarded call by the one that the cell has chosen.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::forward {

extern const cell::call_transport exit_transport, module_transport;

/// What another transport leaves over of a vector: makes its first call. A call that libxos carries
/// out itself is answered with -ENOSYS: it cannot be in a vector.
long first_call_by_exit(cell::context& c, const std::uint64_t* arguments);

// The cell's hooks.
base::outcome choose_transport(transport wanted);
void on_interrupted(cell::context& c);

}  // namespace xos::forward
