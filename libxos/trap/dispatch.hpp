// What the dispatcher in the guest needs to know, set once by start().
#pragma once

#include <cstdint>
#include <xos/trap.hpp>

namespace xos::trap {

struct dispatch_configuration {
    std::uint64_t xsave_size = 0;
    std::uint64_t xcr0 = 0;
    /// Makes memory present that waits for its first touch; null in ring3, where page tables are out
    /// of the dispatcher's reach, and the host does it.
    bool (*touch)(std::uint64_t address) = nullptr;
};

extern dispatch_configuration the_configuration;

}  // namespace xos::trap

extern "C" {
/// handler(frame, argument) with the extended state of the interrupted code kept.
xos::verdict xos_call_saving_fpu(xos::trap_frame* frame, void* argument, xos::trap_handler handler,
                                 std::uint64_t xsave_size, std::uint64_t components);
void xos_trap_dispatch(xos::trap_frame* frame);
}
