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
enum class served : unsigned char { process_memory, program_break, identity, event_loops, count };

/// From now on the calls of this group are answered inside, except those that the application
/// answers.
void answer_inside(served group);
/// From now on they leave the guest.
void answer_outside(served group);

/// Libxos's own answer to the call; null: it leaves the guest.
local_call answer_of_own(unsigned number);

/// Whether the call is one of this group.
bool belongs_to(served group, unsigned number);

/// The entry that also logs what `plain` answers; null: there is none.
local_call logging_entry(local_call plain);

}  // namespace xos::syscall
