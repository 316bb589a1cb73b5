// The table that the SYSCALL stub looks into before it leaves the guest, and libxos's own answers
// (local_calls.def).
#pragma once

#include <xos/syscall.hpp>

#include "libxos/arch/guest_layout.h"

extern "C" {
/// By number; null: forward.
extern xos::local_call xos_local_calls[XOS_SYSCALL_TABLE];
}

namespace xos::syscall {

/// What must be there before calls can be answered.
enum class served : unsigned char { process_memory, program_break };

/// From now on the calls of this group are answered inside.
void answer_inside(served group);

/// The entry that also logs what `plain` answers; null: there is none.
local_call logging_entry(local_call plain);

}  // namespace xos::syscall
