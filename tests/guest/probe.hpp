// Accesses that may fault, as questions with an answer.
#pragma once

#include <xos/trap.hpp>
#include <xos/types.hpp>

namespace xos::test {

/// Makes the three questions answerable while it lives. The cell has started.
trap_registration probe_accesses();

// Inside the guest.
bool can_read(gva a);
bool can_write(gva a);    ///< writes back what it finds, if it may read; else zero
bool can_execute(gva a);  ///< a RET must lie there

}  // namespace xos::test
