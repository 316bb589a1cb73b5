// Where jemalloc's extents come from: an arena, through jemalloc's extent hooks.
//
// All extents of one arena lie in one range of addresses, may be split anywhere, and merge with
// whatever adjoins. What is given back goes to the arena at once, so jemalloc never has to ask for
// pages to be purged or decommitted.
#pragma once

#include <jemalloc/jemalloc.h>

#include <xos/jemalloc.hpp>

namespace xos::memory {

/// jemalloc hands the address of its table of hooks to every hook: the rest stands behind it.
/// Must live as long as an arena of jemalloc's uses it.
struct extents {
    extent_hooks_t hooks;
    arena* memory;
    /// For extents that are not the arena's.
    extent_hooks_t* others;
    when_exhausted policy;

    extents(arena& a, when_exhausted policy);
    extents(const extents&) = delete;
    extents& operator=(const extents&) = delete;
};

}  // namespace xos::memory
