// Makes pages of the process arena Linux's, and takes them back: host mode, under the lock of the
// address space unless it says otherwise.
#pragma once

#include "libxos/vm/process/anonymous_edits.hpp"

namespace xos::vm {

/// Called after Linux has mapped something there, or has been told something about that memory.
void mark_as_linux(gva begin, std::uint64_t length, bool executable);

}  // namespace xos::vm
