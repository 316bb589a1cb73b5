// Edits of the entries of one range. No edit can fail, and none flushes: what a TLB must forget is
// in the list of stale pages afterwards. The caller keeps edits of one range apart; those of single
// entries need no lock.
#pragma once

#include "libxos/paging/stale_pages.hpp"
#include "libxos/paging/table_range.hpp"

namespace xos::paging {

/// The part of a range that one table covers, or less.
struct piece {
    const table_range& r;
    std::uint64_t index;
    gva begin;
    std::uint64_t length;

    bool whole() const { return length == std::uint64_t{1} << r.coarse_shift; }
    unsigned first() const { return begin.value >> r.fine_shift & 511; }
    unsigned count() const { return static_cast<unsigned>(length >> r.fine_shift); }
    arch::entry* table() const { return r.table(index); }
    arch::entry& coarse() const { return *r.coarse[index]; }
    gva page(unsigned i) const { return begin + (std::uint64_t{i} << r.fine_shift); }
};

template <class F>
void for_each_piece(const table_range& r, gva begin, std::uint64_t length, F&& f) {
    const std::uint64_t size = std::uint64_t{1} << r.coarse_shift;
    while (length) {
        const std::uint64_t room = size - (begin.value & (size - 1));
        const std::uint64_t part = length < room ? length : room;
        f(piece{r, r.piece_of(begin), begin, part});
        begin = begin + part;
        length -= part;
    }
}

// ---- one entry

/// Changes the access of a mapped entry; another one stays as it is.
inline void change_access(arch::entry& slot, access a, gva page, stale_pages& stale) {
    const auto chosen = flags_of(a);
    arch::entry old = arch::load(slot), wanted;
    do {
        if (!is_mapped(old)) return;
        wanted = with_access(old, chosen);
        if (wanted == old) return;
    } while (!arch::compare_exchange(slot, old, wanted));
    if (takes_away(old, wanted)) stale.add(page);
}

/// The same for a page that usually has another access. False: it is not mapped.
/// @param shrank  set when the page is stale now
[[gnu::always_inline]] inline bool change_access_now(arch::entry& slot, access a, bool& shrank) {
    const auto chosen = flags_of(a);
    arch::entry old = arch::load(slot), wanted;
    do {
        if (!is_mapped(old)) return false;
        wanted = with_access(old, chosen);
    } while (!arch::compare_exchange(slot, old, wanted));
    shrank = takes_away(old, wanted);
    return true;
}

/// Maps a frame in a 4 KiB entry that is not mapped, or has this frame and less permission. False:
/// something else is mapped there. The entry goes from not present to present, or gains permission.
/// No TLB holds a translation that allows more than the entry does, so no page becomes stale (Intel
/// SDM vol. 3A, 4.10.4.3).
[[gnu::always_inline]] inline bool map_or_widen(arch::entry& slot, gpa frame, access a) {
    const arch::entry wanted(frame, flags_of(a) | accessed_and_dirty);
    arch::entry old{};
    while (!arch::compare_exchange(slot, old, wanted)) {
        if (old.has(leaving)) {
            old = {};
            asm volatile("pause");
            continue;
        }
        if (is_mapped(old) &&
            (old.frame(arch::level::page_4k) != frame || takes_away(old, wanted))) {
            return false;
        }
    }
    return true;
}

/// With `release`, the entry keeps its frame, marked as `leaving`.
inline void remove(arch::entry& slot, gva page, bool release, stale_pages& stale) {
    arch::entry old = arch::load(slot), rest;
    do {
        if (!is_mapped(old)) return;
        rest = release ? arch::entry(gpa(old.bits & arch::address_mask), leaving) : arch::entry{};
    } while (!arch::compare_exchange(slot, old, rest));
    if (old.is_present()) stale.add(page);
}

// ---- ranges

void map_pieces(const table_range& r, gva begin, std::uint64_t length, gpa first, access a,
                arch::level largest, stale_pages& stale, arch::entry_flags use);
void unmap_pieces(const table_range& r, gva begin, std::uint64_t length, bool release,
                  stale_pages& stale);
void protect_pieces(const table_range& r, gva begin, std::uint64_t length, access a,
                    stale_pages& stale);

/// Returns the entry of a range that is one small leaf, or null.
inline arch::entry* only_slot(const table_range& r, gva begin, std::uint64_t length) {
    return length == std::uint64_t{1} << r.fine_shift ? r.slot_of(begin) : nullptr;
}

/// Maps frames from `first` upwards, by leaves up to `largest`; replaces what was there. `use` sets
/// the accessed and dirty bits of the entries.
inline void map_range(const table_range& r, gva begin, std::uint64_t length, gpa first, access a,
                      arch::level largest, stale_pages& stale,
                      arch::entry_flags use = accessed_and_dirty) {
    arch::entry* const slot = only_slot(r, begin, length);
    if (!slot) return map_pieces(r, begin, length, first, a, largest, stale, use);
    const auto flags = flags_of(a) | use | r.fine_size_bit();
    if (arch::exchange(*slot, arch::entry(first, flags)).is_present()) stale.add(begin);
}
/// With `release`, the entries of small leaves keep their frames, marked as `leaving`.
inline void unmap_range(const table_range& r, gva begin, std::uint64_t length, bool release,
                        stale_pages& stale) {
    arch::entry* const slot = only_slot(r, begin, length);
    if (!slot) return unmap_pieces(r, begin, length, release, stale);
    remove(*slot, begin, release, stale);
}
inline void protect_range(const table_range& r, gva begin, std::uint64_t length, access a,
                          stale_pages& stale) {
    arch::entry* const slot = only_slot(r, begin, length);
    if (!slot) return protect_pieces(r, begin, length, a, stale);
    change_access(*slot, a, begin, stale);
}
void move_range(const table_range& from, gva begin, std::uint64_t length, const table_range& to,
                gva target, stale_pages& stale);
/// Replaces large leaves by small ones, which translate identically.
void split_range(const table_range& r, gva begin, std::uint64_t length, stale_pages& stale);
/// Replaces whole tables by large leaves where they translate identically.
void merge_range(const table_range& r, gva begin, std::uint64_t length, stale_pages& stale);

/// Maps whole pieces of a range where nothing is mapped by leaves of their own size, which become
/// present on first touch. Maps the rest at once.
void map_untouched_range(const table_range& r, gva begin, std::uint64_t length, gpa first,
                         stale_pages& stale);
/// Makes a touched page of such a leaf present. False: there is no such leaf. Needs no lock.
bool make_present(const table_range& r, gva page);

enum class copying { as_it_is, until_written };
/// Fills the tables of `to`, which are empty and nobody's yet, with the entries of `from`, the same
/// range in another address space. With `until_written`, both become read-only.
void copy_entries(const table_range& from, const table_range& to, copying how, stale_pages& stale);

/// Calls f(frame) for each frame that unmap_range() has marked as `leaving`, and clears the marks.
/// After the flush: nobody can reach the frames any more.
template <class F>
void for_each_leaving(const table_range& r, gva begin, std::uint64_t length, F&& f) {
    for_each_piece(r, begin, length, [&](const piece& p) {
        if (r.is_replaced(p.index)) return;
        arch::entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) {
            const arch::entry was = arch::load(slot[i]);
            if (!was.has(leaving)) continue;
            arch::store(slot[i], arch::entry{});
            f(frame_of(was));
        }
    });
}

struct usage_scan {
    std::uint64_t flags;    ///< accessed, dirty, or both
    bool clear;             ///< clears them, so that the next use sets them again
    std::uint64_t* bitmap;  ///< bit n becomes whether page n had one set; whole words are written
};
/// Returns the number of used pages, which are as large as the smallest leaf. A large leaf at an
/// edge counts, and is cleared, as a whole.
std::uint64_t scan_range(const table_range& r, gva begin, std::uint64_t length,
                         const usage_scan& scan, stale_pages& stale);

}  // namespace xos::paging
