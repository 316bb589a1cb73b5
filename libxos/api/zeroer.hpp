// The thread that zeroes what arenas have free.
#pragma once

#include "libxos/vm/arena.hpp"

namespace xos::api {

/// From now on until ignore_arena().
void zero_in_background(vm::arena& a);
void ignore_arena(vm::arena& a);

}  // namespace xos::api
