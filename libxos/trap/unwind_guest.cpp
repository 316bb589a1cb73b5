// Lets a C++ exception leave a handler: the interrupted code's frame is the next one.
//
// The frame description in entry_guest.S leads an unwinder to the interrupted code, like that of a
// signal frame. Nothing needs to be restored: while a handler runs, the vCPU is in ordinary code of
// the application, and the trap stack is free for the next exception as soon as RSP has left it.
#include "libxos/arch/guest_area.hpp"

/// The stub's personality routine (Itanium C++ ABI: exception handling, 1.3 and 2.5.2). It polls
/// for a signal, as the normal way back through the stub would have done.
extern "C" int xos_unwind_trap(int, int actions, std::uint64_t, void*, void*) {
    constexpr int cleanup_phase = 2, continue_unwind = 8;
    if (actions & cleanup_phase && xos::arch::current_area()->pending) xos::arch::poll_guest();
    return continue_unwind;
}
