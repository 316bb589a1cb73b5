// Memory of the process arena about which Linux knows something that libxos does not: host mode.
//
// Whatever Linux is told about a range (a lock, a policy, advice that stays, a seal, a right to
// execute, a registration), and whatever it maps there, makes the range Linux's until the program
// unmaps it. What libxos does not know falls on that side by construction. Such pages are present
// in the guest's tables whatever may be done there; Linux's own tables decide, as they do for the
// executables and libraries of the process.
//
// A process can also make all of its memory Linux's at once: see retire_arena().
#pragma once

#include "libxos/vm/anonymous.hpp"

namespace xos::vm {

/// What is mapped in the range is Linux's from now on, with the rights that it has. Nothing happens
/// to what is Linux's already, and to holes. Takes the lock.
void entrust(gva begin, std::uint64_t length);

/// What surrounds an address, as far as the pages beside it are mapped with the same rights.
void entrust_around(gva address);

/// The first page of the range that the guest may not touch (or not write), or gva{0}.
gva first_forbidden(gva begin, std::uint64_t length, bool write);

/// Has Linux refuse a page that the guest may not touch, until reveal(). No page: it could not be
/// done, because somebody else is at it.
cell::concealed_page conceal(std::uint64_t page);
void reveal(const cell::concealed_page& concealed);

/// The guest has tried to execute memory of the arena that Linux manages: whether Linux says that
/// it is code, which it then is in the guest, too.
bool find_arena_code(std::uint64_t address);

/// Linux may go on using pages that the program has unmapped: from then on memory that the program
/// gives back loses its frames before it is used again.
void expect_lent_pages();

/// All memory of the arena becomes Linux's for good: what is mapped there keeps its rights and
/// contents, what is not mapped is unmapped in Linux, and no call of mmap's family is answered
/// inside any more. Pages that hold nothing but zeros may be given back, so that Linux takes them
/// for pages that were never touched.
enum class zero_pages { stay, go };
void retire_arena(zero_pages what);

}  // namespace xos::vm
