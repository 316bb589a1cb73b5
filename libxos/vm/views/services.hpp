// What ordinary code asks of the kernel side about views: requests, and the services that carry them
// out. In the flat modes the short ones are called as functions.
#pragma once

#include <xos/vm.hpp>

#include "libxos/vm/gateway.hpp"

namespace xos::vm {

enum class edit_kind : std::uint32_t { map, map_new, unmap, protect, move, split, merge };

/// One entry of a batch, as the API hands it to the kernel side.
struct edit {
    edit_kind kind;
    access allowed;
    std::uint32_t largest;  ///< arch::level of the largest leaf to map with
    std::uint32_t option;   ///< unmap: give frames back to the pool; map: clear accessed and dirty
    gva begin;
    std::uint64_t length;
    std::uint64_t target;  ///< map: the first frame; move: the new address
};

struct edit_request {
    const edit* edits;
    std::uint64_t count;
    std::uint64_t failed;  ///< out: index of the edit that was refused
};

struct scan_request {
    gva begin;
    std::uint64_t length;
    std::uint64_t* bitmap;
    std::uint64_t flags;  ///< arch::entry_flags that count
    bool clear;
    std::uint64_t found;  ///< out
};

struct query_request {
    gva address;
    translation found;
};

// Gateway services: long f(long a, b, c, d, e, f), on the system-call stack.
long map_page(long page, long frame, long writable, long, long, long);
long protect_page(long page, long wanted, long, long, long, long);
long commit_edits(long request, long, long, long, long, long);
long scan_used(long request, long, long, long, long, long);
long query_page(long request, long, long, long, long, long);

/// map_page and protect_page as functions of ordinary code in the flat modes. Signals wait until it
/// is done.
long map_page_directly(long page, long frame, long writable) noexcept;
long protect_page_directly(long page, long wanted) noexcept;
/// The same, but only on the stack of a handler: it holds the lock, and other stacks may not be
/// mapped.
long copy_on_write_directly(long page) noexcept;

}  // namespace xos::vm
