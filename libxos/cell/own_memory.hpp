// What the cell cannot go on without: libxos's own code and data in this process. A program that
// changes its mappings (munmap, mprotect, ... over a range that it does not own) is refused, as
// Linux refuses it for a sealed mapping.
#pragma once

#include <xos/types.hpp>

namespace xos::cell {

/// Host mode. Of the image that this is linked into, only the entry stubs count where the program
/// itself is linked with libxos: the rest may be the program's.
bool overlaps_own_memory(gva begin, std::uint64_t length);

}  // namespace xos::cell
