// What the local calls of mmap's family share: queries of the process arena's entries, and basic
// edits. Under the address space's lock unless it says otherwise.
#pragma once

#include "libxos/vm/process/anonymous.hpp"

namespace xos::vm::anonymous {

constexpr long declined = XOS_LOCAL_DECLINED;
constexpr std::uint64_t all_protections = 7;

inline arena& memory_arena() {
    return the_process_arena;
}
inline memory::edit_lock& lock() {
    return cell::the_cell.space().lock();
}

struct process_memory {
    /// How many pages of the arena Linux manages: usually none, which spares every search.
    std::uint64_t linux_pages = 0;
    /// The kernel may still use pages that it was lent (vm/process/linux_memory.hpp).
    bool lends_pages = false;
};
extern process_memory the_process_memory;

constexpr std::uint64_t round_up(std::uint64_t bytes) {
    return (bytes + page_size - 1) & ~(page_size - 1);
}

/// The access that a PROT_... of mmap(2) grants, and the reverse.
access grant(std::uint64_t protection);
int protection_for(access a);

/// The entry of an arena page, large or small.
arch::entry entry_at(gva page);
inline bool is_linux(arch::entry e) {
    return e.has(paging::linux_managed);
}

/// Where a range lies, relative to the arena.
enum class place { elsewhere, inside, across };
inline place place_of(std::uint64_t address, std::uint64_t length) {
    const arena& a = memory_arena();
    if (!a.exists()) return place::elsewhere;
    if (a.contains(gva{address}, length)) return place::inside;
    const std::uint64_t end = address + length, begin = a.begin().value;
    const bool apart = end >= address && (end <= begin || address >= begin + a.length());
    return apart ? place::elsewhere : place::across;
}

/// Calls f for each run of pages with the same `which`.
template <class Which, class F>
void for_each_run(gva begin, std::uint64_t length, Which&& which, F&& f) {
    const gva end = begin + length;
    while (begin < end) {
        const auto kind = which(begin);
        gva next = begin + page_size;
        while (next < end && which(next) == kind) next = next + page_size;
        f(begin, next - begin, kind);
        begin = next;
    }
}

/// Has this thread make a call in host mode. It is no forwarded call: a signal does not take it
/// back.
long ask_linux(long number, std::uint64_t a0, std::uint64_t a1, std::uint64_t a2 = 0);

/// Maps zeroed pages that already are the application's, or were just taken, with this access.
void map_zeroed(gva begin, std::uint64_t length, access allowed, stale_pages& stale);
bool all_mapped(gva begin, std::uint64_t length);
bool has_linux_pages(gva begin, std::uint64_t length);

/// Whether Linux must carry out a call that takes these pages, or their contents, away.
inline bool is_for_linux(gva begin, std::uint64_t length) {
    return the_process_memory.lends_pages || has_linux_pages(begin, length);
}

// These take the lock themselves and return `declined` where Linux must carry the call out.

/// munmap(2) of a part of the arena.
long unmap(gva begin, std::uint64_t length);
/// Maps anonymous memory by MAP_FIXED over a part of the arena.
long map_fixed(std::uint64_t address, std::uint64_t length, std::uint64_t protection,
               std::uint64_t flags);
/// MADV_DONTNEED: the pages stay, their contents go.
long discard(gva begin, std::uint64_t length);

}  // namespace xos::vm::anonymous
