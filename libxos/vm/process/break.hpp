// The program's break (brk(2)), served inside the guest.
//
// Linux's own break is ahead of the program's by a window. To grow or shrink within it only changes
// a number here and, where memory comes back into use, zeroes it. Addresses, order and contents are
// as with Linux. A thread outside would see Linux's break, so this is only for processes whose
// every thread is inside, such as the preload's.
//
// When the program uses these addresses in another way (munmap, mprotect, a fixed mapping, ...),
// Linux's break becomes the program's for good, and Linux carries out every later brk.
#pragma once

#include <xos/residency.hpp>

#include "libxos/cell/cell.hpp"

namespace xos::vm {

/// Protected by the address space's lock.
struct program_break {
    bool known = false;     ///< the other fields are valid
    bool is_linux = false;  ///< Linux's break is the program's
    residency pager{};
    std::uint64_t window = 0;    ///< bytes, for residency::window
    std::uint64_t begin = 0;     ///< addresses below it are not the heap's
    std::uint64_t current = 0;   ///< the break that the program knows
    std::uint64_t used_end = 0;  ///< pages from here on are zero
    std::uint64_t linux_break = 0;

    bool contains(std::uint64_t address, std::uint64_t length) const {
        return known && address < linux_break && address + length > begin;
    }
};

extern program_break the_break;

void serve_break(residency pager, std::uint64_t window);

/// Host mode, without the lock. Makes room for a break at `wanted` if Linux has room.
void extend_break(std::uint64_t wanted);
/// Host mode, without the lock. Sets Linux's break to `wanted`, or as far as Linux allows, and the
/// program's to the same.
void set_linux_break(std::uint64_t wanted);
/// Host mode, without the lock. Gives what the program has not asked for back to Linux; others may
/// then use Linux's break until the next brk inside.
void settle_break();

/// Kernel side, without the lock.
void leave_break_to_linux(std::uint64_t address, std::uint64_t length);
/// Host mode, without the lock: the same.
void leave_break_to_linux_from_host(std::uint64_t address, std::uint64_t length);
/// Host mode, without the lock: the same wherever the heap is or will be.
void leave_all_break_to_linux();
/// Must be called before Linux changes something at these addresses.
inline void make_way(std::uint64_t address, std::uint64_t length) {
    if (the_break.contains(address, length)) [[unlikely]]
        leave_break_to_linux(address, length);
}

}  // namespace xos::vm
