// What entries of page tables look like, and what the bits mean that the processor ignores.
#pragma once

#include <xos/vm.hpp>

#include "libxos/arch/page_table_entry.hpp"

namespace xos::paging {

using vm::access;

/// Set beforehand in most leaves; otherwise a KVM that shadows page tables would take one more
/// fault on every page.
inline constexpr auto accessed_and_dirty = arch::entry_flags::accessed | arch::entry_flags::dirty;

// ---- bits of software

/// Not present, but the entry keeps its frame: mapped without any permission.
inline constexpr auto held = arch::entry_flags::software_11;
/// Not present; the frame is on its way back to the pool.
inline constexpr auto leaving = arch::entry_flags::software_10;
/// Set besides `held` in a large leaf that may be read and written but has not been touched. The
/// first fault makes it present.
inline constexpr auto untouched = arch::entry_flags::software_52;
/// In a view: the page is read-only until it is copied, or no other space maps the frame.
inline constexpr auto copied_on_write = arch::entry_flags::software_9;
/// In the process arena, in a present entry: Linux's own tables decide, as for a chunk. The same
/// bit, because no arena is ever copied.
inline constexpr auto linux_managed = arch::entry_flags::software_9;

inline bool is_untouched(arch::entry e) {
    return !e.is_present() && e.has(untouched);
}
inline bool is_mapped(arch::entry e) {
    return e.has(arch::entry_flags::present | held);
}

// ---- leaves and references

inline gpa frame_of(arch::entry e) {
    return gpa(e.bits & arch::address_mask);
}

/// The entry that refers to a table. It allows everything: only leaves carry protection. It has the
/// accessed bit from the start, which spares the CPU a locked write.
inline arch::entry table_reference(gpa table) {
    using enum arch::entry_flags;
    return {table, present | writable | user | accessed};
}

/// Fills a table with leaves of the size `step`, the first of which is `part`. They translate as
/// one leaf over all of them does. With an empty entry and 0 the table becomes empty.
inline void fill_table(arch::entry* table, arch::entry part, std::uint64_t step) {
    for (std::size_t i = 0; i < arch::entries_per_table; i++) {
        arch::store(table[i], part);
        part.bits += step;
    }
}

// ---- access

/// Indexed by the three bits of an access; memory that may not be read may not be touched at all.
inline constexpr auto access_flags = [] {
    using enum arch::entry_flags;
    struct {
        arch::entry_flags of[8];
    } table{};
    for (unsigned bits = 0; bits < 8; bits++) {
        const auto more = (bits & 2 ? writable : none) | (bits & 4 ? none : no_execute);
        table.of[bits] = bits & 1 ? present | user | more : held;
    }
    return table;
}();
constexpr arch::entry_flags flags_of(access a) {
    return access_flags.of[static_cast<unsigned>(a) & 7];
}
inline constexpr auto access_bits = arch::entry_flags::present | arch::entry_flags::user |
                                    arch::entry_flags::writable | arch::entry_flags::no_execute |
                                    held | untouched;

inline access access_of(arch::entry e) {
    if (!e.is_present()) return access::none;
    return static_cast<access>(1u | (e.has(arch::entry_flags::writable) ? 2u : 0u) |
                               (e.has(arch::entry_flags::no_execute) ? 0u : 4u));
}
/// @param chosen  flags_of() an access
inline arch::entry with_access(arch::entry e, arch::entry_flags chosen) {
    constexpr auto others = ~static_cast<std::uint64_t>(access_bits);
    return arch::entry((e.bits & others) | static_cast<std::uint64_t>(chosen));
}

/// Whether a TLB may hold more than the entry now allows.
inline bool takes_away(arch::entry before, arch::entry after) {
    using enum arch::entry_flags;
    if (!before.is_present()) return false;
    const arch::entry lost(before.bits & ~after.bits), gained(after.bits & ~before.bits);
    return lost.has(present | writable) || gained.has(no_execute);
}

/// The entry of a page that is from now on shared until somebody writes to it.
inline arch::entry until_written(arch::entry e) {
    if (!e.is_present() || !e.has(arch::entry_flags::writable)) return e;
    const auto writable = static_cast<std::uint64_t>(arch::entry_flags::writable);
    return arch::entry((e.bits & ~writable) | static_cast<std::uint64_t>(copied_on_write));
}
/// The reverse, over a frame that belongs to this page alone.
inline arch::entry once_written(arch::entry shared, gpa frame) {
    return {frame, (shared.flags() & ~copied_on_write) | arch::entry_flags::writable};
}

}  // namespace xos::paging
