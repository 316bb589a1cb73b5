// Page tables of one's own: views.
//
// A view is a range of guest addresses that Linux knows nothing of: it has no pages until the
// application maps frames there, usually from a fault handler (`xos/trap.hpp`). Frames come from
// the cell's frame arena, which is resident memory that the guest also sees at its host address.
//
//     xos::gva v = xos::vm::reserve(1 << 20);
//     xos::gpa f = xos::vm::allocate_frame();
//     xos::vm::map(v, f, xos::vm::access::read_write);   // no exit, no flush: permissions only
//     grow
//
// System calls do not see views: Linux answers EFAULT for a pointer into one.
#pragma once

#include <cstddef>
#include <xos/types.hpp>

namespace xos::vm {

enum class access : unsigned {
    read,  ///< read and execute
    read_write,
};

enum class map_result : long {
    ok = 0,
    not_reserved = -1,  ///< the page is in no view
    misaligned = -2,
    shrinks = -3,  ///< something else is mapped there, or with more permission
};

/// Reserves `bytes` (rounded up to 64 MiB) of guest addresses and the tables to map 4 KiB pages
/// there. Call after `start()`, inside or outside. Reserved until the process ends.
/// @throws std::system_error ENOMEM, or EPERM before `start()`.
gva reserve(std::size_t bytes);

/// One 4 KiB frame of the arena, zeroed when it was never used, or gpa{0} when none is left or
/// `reserve()` has not been called yet. Inside and outside, also in a fault handler.
gpa allocate_frame() noexcept;
void free_frame(gpa frame) noexcept;

/// Where the application can read and write a frame: its host address, which is valid inside, too.
void* frame_data(gpa frame) noexcept;

/// Maps a frame at a page of a view, or gives the page mapped there more permission. Inside the
/// guest; from a fault handler or from anywhere else; any thread, at the same time.
map_result map(gva page, gpa frame, access a) noexcept;

}  // namespace xos::vm
