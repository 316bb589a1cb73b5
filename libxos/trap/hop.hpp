// What the way out of the guest's state and the way back into the guest share.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::trap {

void lock_table(cell::context& c, cell::context::holding how);
/// Whatever this thread holds.
void unlock_table(cell::context& c);

/// The kernel's alternate stack is off while the run loop runs.
void alternate_off(cell::context& c);

/// Has Linux refuse the frame of a signal that is about to be delivered where the guest's tables
/// do: its own allow everything there. Undone when the thread lands.
void refuse_frame_as_the_guest(cell::context& c, std::uint64_t rsp, int signal);

/// Leaves a signal that has been taken from Linux to Linux again, for this thread.
void queue_for_linux(cell::context& c, const cell::queued_signal& s);
void forget_waiting(cell::context& c);

}  // namespace xos::trap
