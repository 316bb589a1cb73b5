// The thread that zeroes free memory of arenas.
#pragma once

#include "libxos/vm/arenas/arena.hpp"

namespace xos::api {

/// Zeroes free memory of `a` until ignore_arena().
void zero_in_background(vm::arena& a);
void ignore_arena(vm::arena& a);

}  // namespace xos::api
