// The program's break (brk(2)), served inside.
//
// Linux's own break runs ahead of the program's by a window, so that growing and shrinking within
// it is a number here and, where memory comes back into use, zeroing. Addresses, order and contents
// are what Linux's would be. A thread outside would meet Linux's break, so this is for processes
// whose every thread is inside: the preload's.
//
// When the program does something else to these addresses (munmap, mprotect, a fixed mapping, ...),
// Linux's break becomes the program's for good, and every later brk is Linux's.
#pragma once

#include <xos/residency.hpp>

#include "libxos/cell/cell.hpp"

namespace xos::vm {

/// Under the address space's lock.
struct program_break {
    bool known = false;     ///< the rest says something
    bool is_linux = false;  ///< Linux's break is the program's
    residency pager{};
    std::uint64_t window = 0;    ///< bytes, for residency::window
    std::uint64_t begin = 0;     ///< below it is none of our business
    std::uint64_t current = 0;   ///< what the program knows
    std::uint64_t used_end = 0;  ///< from here on pages are zero
    std::uint64_t linux_break = 0;

    bool contains(std::uint64_t address, std::uint64_t length) const {
        return known && address < linux_break && address + length > begin;
    }
};

extern program_break the_break;

void serve_break(residency pager, std::uint64_t window);

/// Host mode, without the lock. Makes room for a break at `wanted` if Linux has it.
void extend_break(std::uint64_t wanted);
/// Host mode, without the lock. Linux's break becomes `wanted`, or what Linux makes of it, and the
/// program's that.
void set_linux_break(std::uint64_t wanted);
/// Host mode, without the lock. What the program has not asked for goes back to Linux, who may then
/// be asked by others until the next brk inside.
void settle_break();

/// Kernel side, without the lock.
void leave_break_to_linux(std::uint64_t address, std::uint64_t length);
/// Host mode, without the lock: the same.
void leave_break_to_linux_from_host(std::uint64_t address, std::uint64_t length);
/// Host mode, without the lock: wherever the heap is, and will be.
void leave_all_break_to_linux();
/// Before Linux does something to these addresses.
inline void make_way(std::uint64_t address, std::uint64_t length) {
    if (the_break.contains(address, length)) [[unlikely]]
        leave_break_to_linux(address, length);
}

}  // namespace xos::vm
