// The table of services that the SYSCALL entry calls for numbers that Linux does not have.
#include "libxos/arch/guest_layout.h"
#include "libxos/vm/arena.hpp"
#include "libxos/vm/spaces.hpp"

extern "C" {
/// Kernel-side services, by gateway number.
extern const void* const xos_gateway_calls[XOS_GATEWAY_COUNT] = {
    reinterpret_cast<const void*>(&xos::vm::map_page),
    reinterpret_cast<const void*>(&xos::vm::protect_page),
    reinterpret_cast<const void*>(&xos::vm::commit_edits),
    reinterpret_cast<const void*>(&xos::vm::scan_used),
    reinterpret_cast<const void*>(&xos::vm::query_page),
    reinterpret_cast<const void*>(&xos::vm::arena_allocate),
    reinterpret_cast<const void*>(&xos::vm::arena_free),
    reinterpret_cast<const void*>(&xos::vm::space_make),
    reinterpret_cast<const void*>(&xos::vm::space_end),
    reinterpret_cast<const void*>(&xos::vm::space_separate),
    reinterpret_cast<const void*>(&xos::vm::space_switch),
    reinterpret_cast<const void*>(&xos::vm::copy_on_write),
};
}
