// libxos's own code and data in this process, without which the cell cannot continue. A program
// that changes these mappings (munmap, mprotect, ... over a range that it does not own) is refused,
// as Linux refuses it for a sealed mapping.
#pragma once

#include <xos/types.hpp>

namespace xos::cell {

/// Host mode. If the program itself is linked with libxos, only the entry stubs of its image count:
/// the rest may be the program's.
bool overlaps_own_memory(gva begin, std::uint64_t length);

}  // namespace xos::cell
