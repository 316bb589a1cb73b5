// Pages of the process arena that Linux manages, and how they come and go: host mode, under the
// lock of the address space unless it says otherwise.
#pragma once

#include "libxos/vm/anonymous_edits.hpp"

namespace xos::vm {

/// Without the lock, too: new memory of Linux's in a part of the arena, whatever lies there.
/// Linux's error, and then nothing has changed.
long map_fresh(gva begin, std::uint64_t length);

/// After Linux has mapped something there, or has been told something about what lies there.
void mark_as_linux(gva begin, std::uint64_t length, bool executable);

}  // namespace xos::vm
