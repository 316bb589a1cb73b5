// Views: guest addresses whose translations the application owns.
#pragma once

#include <atomic>
#include <xos/vm.hpp>

#include "libxos/base/futex_lock.hpp"
#include "libxos/base/outcome.hpp"
#include "libxos/memory/address_space.hpp"
#include "libxos/paging/range_edits.hpp"
#include "libxos/vm/views/flush.hpp"

namespace xos::vm {

using paging::access_of;
using paging::flags_of;
using paging::frame_of;
using paging::is_mapped;
using paging::is_untouched;
using paging::stale_pages;

/// Edited by the functions of paging/range_edits.hpp, under the address space's lock unless they
/// say that they need none. Read by kernel-side code. Its tables exist before any thread finds it.
struct view : paging::table_range {
    bool is_arena = false;  ///< its frames have the addresses of the view, and its length grows
    /// For a view that was given back, whose `length` is 0: how many bytes of addresses have
    /// tables.
    std::uint64_t free_length = 0;
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
