// Anonymous private memory of the process, from its arena: mmap and its family without an exit.
//
// Served are private anonymous mappings at addresses of the arena's choice, and everything that is
// later done to them. A new mapping must be readable, or a reservation without rights
// (MAP_NORESERVE). The guest's page tables say what is mapped and with which rights. The rest goes
// to Linux. Where that lands in the arena (for example a file mapped over a part of a reservation),
// the pages are Linux's until they are unmapped.
//
// Linux sees the arena as one readable and writable mapping. Where a system call would notice the
// difference, Linux is told first (vm/process/linux_memory.hpp, forward/arguments.hpp).
#pragma once

#include "libxos/cell/cell.hpp"
#include "libxos/vm/arenas/arena.hpp"

namespace xos::vm {

/// Limits the process arena to `bytes`; 0: everything goes to Linux. Called before the start.
void serve_anonymous_memory(std::uint64_t bytes, residency pager, std::uint64_t window);

/// Whether libxos must refuse an access to this address, and in which way.
cell::refusal why_refused(std::uint64_t address);

/// Host mode: makes Linux allow exactly what the guest's tables allow in the arena, before the
/// process continues without them.
void show_arena_to_linux();

}  // namespace xos::vm

extern "C" {
// Local calls (syscall/local_calls.def).
long xos_mmap(std::uint64_t address, std::uint64_t length, std::uint64_t protection,
              std::uint64_t flags, std::uint64_t fd, std::uint64_t offset);
long xos_mprotect(std::uint64_t address, std::uint64_t length, std::uint64_t protection);
long xos_munmap(std::uint64_t address, std::uint64_t length);
long xos_brk(std::uint64_t wanted);
long xos_mremap(std::uint64_t address, std::uint64_t length, std::uint64_t wanted,
                std::uint64_t flags, std::uint64_t target);
long xos_madvise(std::uint64_t address, std::uint64_t length, std::uint64_t advice);
}
