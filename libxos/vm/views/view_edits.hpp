// Edits of the entries of one view. Made under the address space's lock, in either mode; no edit
// can fail.
#pragma once

#include "libxos/vm/views/views.hpp"

namespace xos::vm {

/// The part of a view that one table covers, or less.
struct piece {
    const view& v;
    std::uint64_t index;
    gva begin;
    std::uint64_t length;

    bool whole() const { return length == std::uint64_t{1} << v.coarse_shift; }
    unsigned first() const { return begin.value >> v.fine_shift & 511; }
    unsigned count() const { return static_cast<unsigned>(length >> v.fine_shift); }
    arch::entry* table() const { return v.table(index); }
    arch::entry& coarse() const { return *v.coarse[index]; }
    gva page(unsigned i) const { return begin + (std::uint64_t{i} << v.fine_shift); }
};

template <class F>
void for_each_piece(const view& v, gva begin, std::uint64_t length, F&& f) {
    const std::uint64_t size = std::uint64_t{1} << v.coarse_shift;
    while (length) {
        const std::uint64_t room = size - (begin.value & (size - 1));
        const std::uint64_t part = length < room ? length : room;
        f(piece{v, v.piece_of(begin), begin, part});
        begin = begin + part;
        length -= part;
    }
}

/// The upper-level entry that refers to a table of ours.
arch::entry reference_to(const arch::entry* table);

/// Restores the table of the piece. Translations stay the same, so nothing is flushed.
void split(const piece& p);
/// Replaces the table by a large leaf.
void replace(const piece& p, arch::entry leaf, stale_translations& stale);

/// Maps whole pieces of a range where nothing is mapped by leaves of their own size, which become
/// present on first touch. Maps the rest at once.
void map_untouched_range(const view& v, gva begin, std::uint64_t length, gpa first,
                         stale_translations& stale);
/// Makes a touched page of such a leaf present. False: there is no such leaf. Needs no lock.
bool make_present(const view& v, gva page);

// ---- one entry

inline arch::entry_flags size_bit(const view& v) {
    return v.fine_shift == 12 ? arch::entry_flags::none : arch::entry_flags::large;
}

inline void change_access(arch::entry& slot, access a, gva page, stale_translations& stale) {
    constexpr auto others = ~static_cast<std::uint64_t>(access_bits);
    const auto chosen = static_cast<std::uint64_t>(flags_of(a));
    arch::entry old = arch::load(slot), wanted;
    do {
        if (!is_mapped(old)) return;
        wanted = arch::entry((old.bits & others) | chosen);
        if (wanted == old) return;
    } while (!arch::compare_exchange(slot, old, wanted));
    if (takes_away(old, wanted)) stale.add(page);
}

inline void remove(arch::entry& slot, gva page, bool release, stale_translations& stale) {
    arch::entry old = arch::load(slot), rest;
    do {
        if (!is_mapped(old)) return;
        rest = release ? arch::entry(gpa(old.bits & arch::address_mask), leaving) : arch::entry{};
    } while (!arch::compare_exchange(slot, old, rest));
    if (old.is_present()) stale.add(page);
}

// ---- ranges

void map_pieces(const view& v, gva begin, std::uint64_t length, gpa first, access a,
                arch::level largest, stale_translations& stale, arch::entry_flags use);
void unmap_pieces(const view& v, gva begin, std::uint64_t length, bool release,
                  stale_translations& stale);
void protect_pieces(const view& v, gva begin, std::uint64_t length, access a,
                    stale_translations& stale);

/// Returns the entry of a range that is one small leaf, or null.
inline arch::entry* only_slot(const view& v, gva begin, std::uint64_t length) {
    return length == std::uint64_t{1} << v.fine_shift ? v.slot_of(begin) : nullptr;
}

/// Maps frames from `first` upwards, by leaves up to `largest`; replaces what was there. `use` sets
/// the accessed and dirty bits of the entries.
inline void map_range(const view& v, gva begin, std::uint64_t length, gpa first, access a,
                      arch::level largest, stale_translations& stale,
                      arch::entry_flags use = memory::accessed_and_dirty) {
    arch::entry* const slot = only_slot(v, begin, length);
    if (!slot) return map_pieces(v, begin, length, first, a, largest, stale, use);
    const auto flags = flags_of(a) | use | size_bit(v);
    if (arch::exchange(*slot, arch::entry(first, flags)).is_present()) stale.add(begin);
}
/// With `release`, the entries of small leaves keep their frames, marked as `leaving`.
inline void unmap_range(const view& v, gva begin, std::uint64_t length, bool release,
                        stale_translations& stale) {
    arch::entry* const slot = only_slot(v, begin, length);
    if (!slot) return unmap_pieces(v, begin, length, release, stale);
    remove(*slot, begin, release, stale);
}
inline void protect_range(const view& v, gva begin, std::uint64_t length, access a,
                          stale_translations& stale) {
    arch::entry* const slot = only_slot(v, begin, length);
    if (!slot) return protect_pieces(v, begin, length, a, stale);
    change_access(*slot, a, begin, stale);
}
void move_range(const view& from, gva begin, std::uint64_t length, const view& to, gva target,
                stale_translations& stale);
void split_range(const view& v, gva begin, std::uint64_t length, stale_translations& stale);
void merge_range(const view& v, gva begin, std::uint64_t length, stale_translations& stale);

}  // namespace xos::vm
