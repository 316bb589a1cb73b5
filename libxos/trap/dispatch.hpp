// What the dispatcher in the guest needs to know; start() sets it once.
#pragma once

#include <cstdint>
#include <xos/trap.hpp>

namespace xos::trap {

struct dispatch_configuration {
    std::uint64_t xsave_size = 0;
    std::uint64_t xcr0 = 0;
    /// Makes memory present on its first touch; null in ring3, where the dispatcher cannot reach
    /// the page tables and the host does it.
    bool (*touch)(std::uint64_t address) = nullptr;
};

extern dispatch_configuration the_configuration;

}  // namespace xos::trap

extern "C" {
/// Calls handler(frame, argument) with the extended state of the interrupted code saved.
xos::verdict xos_call_saving_fpu(xos::trap_frame* frame, void* argument, xos::trap_handler handler,
                                 std::uint64_t xsave_size, std::uint64_t components);
void xos_trap_dispatch(xos::trap_frame* frame);
}
