// The table that the SYSCALL stub looks into before it leaves the guest.
#pragma once

#include <xos/syscall.hpp>

#include "libxos/arch/guest_layout.h"

extern "C" {
/// By number; null: forward.
extern xos::local_call xos_local_calls[XOS_SYSCALL_TABLE];
}
