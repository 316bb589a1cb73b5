// Provides jemalloc's extents from an arena, through jemalloc's extent hooks.
//
// All extents of one arena are in one range of addresses, may be split anywhere, and merge with
// adjacent ones. A freed extent goes back to the arena at once, so jemalloc never needs to purge or
// decommit pages.
#pragma once

#include <jemalloc/jemalloc.h>

#include <xos/jemalloc.hpp>

namespace xos::memory {

/// jemalloc passes the address of its hook table to every hook, so the other fields follow the
/// table. Must live as long as an arena of jemalloc uses it.
struct extents {
    extent_hooks_t hooks;
    arena* memory;
    /// Hooks for extents that are not the arena's.
    extent_hooks_t* others;
    when_exhausted policy;

    extents(arena& a, when_exhausted policy);
    extents(const extents&) = delete;
    extents& operator=(const extents&) = delete;
};

}  // namespace xos::memory
