// What an entry of a view's tables says besides what the processor reads in it.
#pragma once

#include <xos/vm.hpp>

#include "libxos/arch/page_table_entry.hpp"

namespace xos::vm {

/// Not present, but the entry keeps its frame: mapped without any permission.
inline constexpr auto held = arch::entry_flags::software_11;
/// Not present; the frame is on its way back to the pool.
inline constexpr auto leaving = arch::entry_flags::software_10;

/// Set besides `held` in a large leaf that may be read and written but has not been touched. The
/// first fault makes it present.
inline constexpr auto untouched = arch::entry_flags::software_52;

inline bool is_untouched(arch::entry e) {
    return !e.is_present() && e.has(untouched);
}
inline bool is_mapped(arch::entry e) {
    return e.has(arch::entry_flags::present | held);
}

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

/// Whether a TLB may hold more than the entry now allows.
inline bool takes_away(arch::entry before, arch::entry after) {
    using enum arch::entry_flags;
    if (!before.is_present()) return false;
    const arch::entry lost(before.bits & ~after.bits), gained(after.bits & ~before.bits);
    return lost.has(present | writable) || gained.has(no_execute);
}

}  // namespace xos::vm
