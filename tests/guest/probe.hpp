// Accesses that may fault, as functions that return what happened, and edits that must not fail.
#pragma once

#include <xos/trap.hpp>
#include <xos/types.hpp>
#include <xos/vm.hpp>

namespace xos::test {

/// Ends the process, which fails the test, unless `r` is ok. Inside and outside.
void must(vm::map_result r);

/// Makes the three questions answerable while it lives. The cell has started.
trap_registration probe_accesses();

// Inside the guest.
bool can_read(gva a);
bool can_write(gva a);    ///< writes back what it finds, if it may read; else zero
bool can_execute(gva a);  ///< a RET must lie there

}  // namespace xos::test
