// Memory of the process arena about which Linux knows something that libxos does not: host mode.
//
// A range becomes Linux's, until the program unmaps it, when Linux is told anything about it (a
// lock, a policy, advice that stays, a seal, a right to execute, a registration) or maps anything
// there. A call that libxos does not know has the same effect. The pages are present in the guest's
// tables whatever their rights; Linux's own tables decide, as for the executables and libraries of
// the process.
//
// A process can also make all of its memory Linux's at once: see retire_arena().
#pragma once

#include "libxos/vm/process/anonymous.hpp"

namespace xos::vm {

/// Makes the mapped pages of the range Linux's, with their present rights. Pages that are Linux's
/// already, and holes, stay as they are. Takes the lock.
void entrust(gva begin, std::uint64_t length);

/// Entrusts an address and its surroundings, as far as they are mapped with the same rights.
void entrust_around(gva address);

/// Returns the first page of the range that the guest may not touch (or not write), or gva{0}.
gva first_forbidden(gva begin, std::uint64_t length, bool write);

/// Has Linux refuse a page that the guest may not touch, until reveal(). Returns no page if another
/// thread is doing the same.
cell::concealed_page conceal(std::uint64_t page);
void reveal(const cell::concealed_page& concealed);

/// The guest has tried to execute memory of the arena that Linux manages. Returns whether Linux
/// says that it is code; then it becomes code in the guest, too.
bool find_arena_code(std::uint64_t address);

/// From now on, memory that the program gives back loses its frames before it is used again,
/// because Linux may go on using pages that the program has unmapped.
void expect_lent_pages();

/// Makes all memory of the arena Linux's for good. What is mapped there keeps its rights and
/// contents; what is not mapped is unmapped in Linux; no call of mmap's family is answered inside
/// any more. Zero pages may be given back, so that Linux takes them for untouched ones.
enum class zero_pages { stay, go };
void retire_arena(zero_pages what);

}  // namespace xos::vm
