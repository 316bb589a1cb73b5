// Views: guest addresses whose translations the application owns.
//
// A view has all its tables from the start, down to the level of its smallest leaf, so no edit can
// run out of memory half way. One level up, a large leaf may replace a table; the table is kept
// until the leaf is split again.
#pragma once

#include <atomic>
#include <xos/vm.hpp>

#include "libxos/base/futex_lock.hpp"
#include "libxos/base/outcome.hpp"
#include "libxos/memory/address_space.hpp"
#include "libxos/vm/views/entries.hpp"
#include "libxos/vm/views/flush.hpp"

namespace xos::vm {

/// Read by kernel-side code. Once the view exists, only the tags of `tables` change.
struct view {
    gva begin;
    std::uint64_t length = 0;    ///< an arena's grows with it
    unsigned fine_shift = 12;    ///< of the smallest leaf
    unsigned coarse_shift = 21;  ///< of what one table covers
    bool is_arena = false;       ///< its frames have the addresses of the view
    /// For a view that was given back, whose `length` is 0: how many bytes of addresses have
    /// tables.
    std::uint64_t free_length = 0;
    /// One for each piece of the size of `coarse_shift`. Tagged while a large leaf takes its place,
    /// or while there is no table yet.
    std::atomic<std::uint64_t>* tables = nullptr;
    arch::entry** coarse = nullptr;  ///< the entries that refer to the tables

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
    bool has_large_leaves() const { return coarser() != arch::level::root; }

    /// Returns the entry of a page, or null while a large leaf covers it.
    arch::entry* slot_of(gva page) const {
        const std::uint64_t offset = page - begin;
        const std::uint64_t tagged = tables[offset >> coarse_shift].load(std::memory_order_relaxed);
        if (tagged & replaced) [[unlikely]]
            return nullptr;
        return reinterpret_cast<arch::entry*>(tagged) + (page.value >> fine_shift & 511);
    }
    /// The same, for a view of 4 KiB leaves.
    arch::entry* slot_of_4k(gva page) const {
        const std::uint64_t tagged =
            tables[(page - begin) / large_page_size].load(std::memory_order_relaxed);
        if (tagged & replaced) [[unlikely]]
            return nullptr;
        return reinterpret_cast<arch::entry*>(tagged + (page.value >> 9 & 0xff8));
    }
};

struct view_table {
    static constexpr unsigned capacity = 256;
    std::atomic<unsigned> count = 0;
    view views[capacity];

    const view* find(gva a) const {
        const view* const end = views + count.load(std::memory_order_acquire);
        for (const view* v = views; v < end; v++) {
            if (a - v->begin < v->length) return v;
        }
        return nullptr;
    }
    bool contains(gva begin, std::uint64_t length) const {
        const view* v = find(begin);
        return v && length <= v->length - (begin - v->begin);
    }
};

extern view_table the_views;

/// Returns the smallest suitable view that was given back, or a new one.
base::outcome reserve_view(std::uint64_t bytes, arch::level smallest, gva& begin);
/// Nothing may be mapped in the view any more, and nobody may use it. Host mode.
void give_back_view(const view& v);
/// Reserves addresses, mapped with this protection, which Linux then gives to nobody else.
base::outcome reserve_addresses(std::uint64_t length, std::uint64_t alignment, long protection,
                                gva& begin);

/// Adds a view of 4 KiB leaves without tables: host mode, space.lock() held. It may grow to
/// `capacity` bytes.
base::outcome add_empty_view(gva begin, std::uint64_t capacity, view*& made);
/// Makes tables for the next `more` bytes of the view, a multiple of 2 MiB.
base::outcome extend_view(view& v, std::uint64_t more);

}  // namespace xos::vm
