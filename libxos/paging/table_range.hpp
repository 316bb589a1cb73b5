// A range of addresses whose tables are found by an index, without a walk.
//
// The range has all its tables from the start, down to the level of its smallest leaf, so no edit
// can run out of memory half way. One level up, a large leaf may replace a table; the table is kept
// until the leaf is split again.
#pragma once

#include <atomic>

#include "libxos/paging/entry_rules.hpp"
#include "libxos/paging/page_tables.hpp"

namespace xos::paging {

/// Any thread may read it. Once the tables exist, only the tags of `tables` change.
struct table_range {
    gva begin;
    std::uint64_t length = 0;
    unsigned fine_shift = 12;    ///< of the smallest leaf
    unsigned coarse_shift = 21;  ///< of what one table covers
    /// One for each piece of the size of `coarse_shift`. Tagged while a large leaf takes its place.
    std::atomic<std::uint64_t>* tables = nullptr;
    arch::entry** coarse = nullptr;     ///< the entries that refer to the tables
    std::uint64_t physical_offset = 0;  ///< a table's address plus this is its guest-physical one

    static constexpr std::uint64_t replaced = 1;

    std::uint64_t piece_of(gva a) const { return (a - begin) >> coarse_shift; }
    arch::entry* table(std::uint64_t piece) const {
        return reinterpret_cast<arch::entry*>(tables[piece].load(std::memory_order_relaxed) &
                                              ~replaced);
    }
    bool is_replaced(std::uint64_t piece) const {
        return tables[piece].load(std::memory_order_relaxed) & replaced;
    }
    arch::level fine() const { return static_cast<arch::level>((fine_shift - 3) / 9); }
    arch::level coarser() const { return static_cast<arch::level>((coarse_shift - 3) / 9); }
    arch::entry_flags fine_size_bit() const {
        return fine_shift == 12 ? arch::entry_flags::none : arch::entry_flags::large;
    }
    bool has_large_leaves() const { return coarser() != arch::level::root; }

    /// Returns the entry of a page, or null while a large leaf covers it.
    arch::entry* slot_of(gva page) const {
        const std::uint64_t offset = page - begin;
        const std::uint64_t tagged = tables[offset >> coarse_shift].load(std::memory_order_relaxed);
        if (tagged & replaced) [[unlikely]]
            return nullptr;
        return reinterpret_cast<arch::entry*>(tagged) + (page.value >> fine_shift & 511);
    }
    /// The same, for a range of 4 KiB leaves.
    arch::entry* slot_of_4k(gva page) const {
        const std::uint64_t tagged =
            tables[(page - begin) / large_page_size].load(std::memory_order_relaxed);
        if (tagged & replaced) [[unlikely]]
            return nullptr;
        return reinterpret_cast<arch::entry*>(tagged + (page.value >> 9 & 0xff8));
    }
    /// The entry of the leaf, large or small, that covers a page.
    arch::entry covering(gva page) const {
        const std::uint64_t piece = piece_of(page);
        return arch::load(is_replaced(piece) ? *coarse[piece] : *slot_of(page));
    }
    /// What an entry of its own would say of a page, which may be part of a large leaf.
    arch::entry as_small_leaf(gva page) const {
        if (arch::entry* slot = slot_of(page)) return arch::load(*slot);
        const arch::entry e = arch::load(*coarse[piece_of(page)]);
        if (!is_mapped(e)) return {};
        return arch::entry(e.bits + (page - page.align_down(std::uint64_t{1} << coarse_shift)));
    }

    /// The upper-level entry that refers to a table.
    arch::entry reference_to(const arch::entry* table) const {
        return table_reference(gpa(reinterpret_cast<std::uint64_t>(table) + physical_offset));
    }
};

/// Makes tables for the next `more` bytes of the range, a multiple of what one table covers. The
/// length stays as it is.
template <class Tables>
status attach_tables(const table_range& r, Tables& tables, std::uint64_t more) {
    const gva begin = r.begin + r.length;
    if (const status s = tables.ensure_tables(begin, more, r.fine()); s != status::ok) return s;
    const std::uint64_t piece = std::uint64_t{1} << r.coarse_shift;
    for (std::uint64_t offset = 0; offset < more; offset += piece) {
        const gva at = begin + offset;
        const std::uint64_t i = r.piece_of(at);
        const auto first = reinterpret_cast<std::uint64_t>(tables.slot_at(at, r.fine()));
        r.tables[i].store(first & ~(page_size - 1), std::memory_order_relaxed);
        r.coarse[i] = tables.slot_at(at, r.coarser());
    }
    return status::ok;
}

}  // namespace xos::paging
