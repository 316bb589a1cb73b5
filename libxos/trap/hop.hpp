// What leaving the guest's state and landing back in the guest share.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::trap {

void lock_table(cell::context& c, cell::table_hold how);
/// Releases the signal table's lock, however this thread holds it.
void unlock_table(cell::context& c);

/// Turns the kernel's alternate stack off, for as long as the run loop runs.
void alternate_off(cell::context& c);

/// The signal that is about to be delivered needs a frame. Where the guest's tables forbid writing
/// it, has Linux refuse it, too: Linux's tables allow everything there. Undone on landing.
void refuse_frame_as_the_guest(cell::context& c, std::uint64_t rsp, int signal);

/// Returns a signal that was taken from Linux to Linux, for this thread.
void queue_for_linux(cell::context& c, const cell::queued_signal& s);
void forget_waiting(cell::context& c);

}  // namespace xos::trap
