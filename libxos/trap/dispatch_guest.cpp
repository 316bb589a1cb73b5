// Kernel side: an exception arrives with its frame on the trap stack.
//
// The path of a page fault on a view to its handler and back is optimised to the instruction
// (bench: trap/fault-map); everything else is out of line.
#include "libxos/arch/guest_area.hpp"
#include "libxos/cell/stubs.hpp"
#include "libxos/trap/dispatch.hpp"
#include "libxos/trap/handlers.hpp"

namespace xos::trap {

dispatch_configuration the_configuration;

namespace {

using arch::guest_area;

/// Runs an application's handler as application code: signals may interrupt it.
[[gnu::always_inline]] inline verdict call(guest_area& area, const handler_entry& h,
                                           trap_frame& frame) {
    area.in_kernel = 0;
    verdict v;
    if (h.flags & handler_entry::general_only) [[likely]] {
        v = h.handler(frame, h.argument);
    } else {
        v = xos_call_saving_fpu(&frame, h.argument, h.handler, the_configuration.xsave_size,
                                the_configuration.xcr0);
    }
    area.in_kernel = 1;
    return v;
}

arch::trap_answer ask_host(guest_area& area, trap_frame& frame, arch::trap_request request) {
    area.frame = &frame;
    area.trap_message = request;
    asm volatile("outl %%eax, %0" : : "i"(XOS_PORT_TRAP), "a"(0) : "memory");
    return static_cast<arch::trap_answer>(area.trap_message);
}

bool settled_by_vector_handlers(guest_area& area, trap_frame& frame) {
    const auto vector = static_cast<unsigned>(frame.vector);
    if (!the_handlers.has_vector(vector)) return false;
    for (unsigned before = ~0u;;) {
        const handler_entry h = the_handlers.find_vector(vector, before);
        if (!h) return false;
        if (call(area, h, frame) == verdict::resume) return true;
        before = h.id;
    }
}

/// Whether libxos copies the program's memory (arch/copy_guest.S).
bool is_copying(const trap_frame& frame) {
    return frame.rip == cell::address_of(xos_copy_insn);
}

[[gnu::noinline]] bool settle_page_fault(guest_area& area, trap_frame& frame, bool from_linux,
                                         bool range_declined) {
    constexpr std::uint64_t code = arch::page_fault::present | arch::page_fault::fetch;
    const bool absent = !(frame.error_code & arch::page_fault::present);
    if (absent && the_configuration.touch && the_configuration.touch(frame.fault_address))
        return true;
    const bool invisible = absent || (frame.error_code & code) == code;
    if (!from_linux && invisible &&
        ask_host(area, frame, arch::trap_request_memory) == arch::trap_answer_retry)
        return true;
    if (is_copying(frame)) return false;
    const handler_entry h =
        range_declined ? handler_entry{} : the_handlers.find_range(frame.fault_address);
    return h && call(area, h, frame) == verdict::resume;
}

[[gnu::noinline]] void settle_slowly(guest_area& area, trap_frame& frame, bool from_linux,
                                     bool range_declined, std::uint64_t outer) {
    const bool interrupted_kernel = outer || arch::on_syscall_stack(area, frame.rsp);
    area.interrupted_kernel = interrupted_kernel;
    if (frame.vector == arch::vector_page_fault &&
        settle_page_fault(area, frame, from_linux, range_declined))
        return;
    if (is_copying(frame)) {
        frame.rip = cell::address_of(xos_copy_stopped);
        return;
    }
    if (!interrupted_kernel && settled_by_vector_handlers(area, frame)) return;
    ask_host(area, frame,
             interrupted_kernel ? arch::trap_request_kernel_fault : arch::trap_request_raise);
}

}  // namespace
}  // namespace xos::trap

extern "C" void xos_trap_dispatch(xos::trap_frame* frame) {
    using namespace xos;
    arch::guest_area& area = *arch::current_area();
    const std::uint64_t outer = area.in_kernel;
    area.in_kernel = 1;
    const std::uint64_t vector = frame->vector & 31;
    const bool from_linux = frame->vector != vector;
    if (from_linux) [[unlikely]]
        frame->vector = vector;
    area.exceptions[vector]++;
    bool range_declined = false;
    if (vector == arch::vector_page_fault) {
        // Linux's memory may only lack a slot: the host checks that before any handler is called.
        const trap::handler_entry h = trap::the_handlers.find_range(frame->fault_address);
        if (h.flags & trap::handler_entry::on_view) {
            if (trap::call(area, h, *frame) == verdict::resume) [[likely]] {
                area.in_kernel = outer;
                return;
            }
            range_declined = true;
        }
    }
    trap::settle_slowly(area, *frame, from_linux, range_declined, outer);
    area.in_kernel = outer;
}
