// The fault handlers of vm_faults.cpp: compiled for general registers only, as those of
// trap_fault_handlers.cpp.
#pragma GCC target("general-regs-only")

#include "bench/suites/vm_handlers.hpp"

#include <sys/mman.h>
#include <ucontext.h>

#include <xos/space.hpp>
#include <xos/vm.hpp>

namespace xos::bench {

verdict skip_write(trap_frame& frame, void*) {
    frame.rip += write_length;
    return verdict::resume;
}

verdict unprotect_page(trap_frame& frame, void*) {
    const gva page = gva{frame.fault_address}.align_down(page_size);
    const auto done = vm::protect(page, vm::access::read_write);
    return done == vm::map_result::ok ? verdict::resume : verdict::pass;
}

verdict copy_page(trap_frame& frame, void*) {
    const gva page = gva{frame.fault_address}.align_down(page_size);
    return copy_on_write(page) == vm::map_result::ok ? verdict::resume : verdict::pass;
}

void skip_write_by_signal(int, siginfo_t*, void* context) {
    static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP] += write_length;
}

void unprotect_by_signal(int, siginfo_t* info, void*) {
    const auto address = reinterpret_cast<std::uint64_t>(info->si_addr);
    mprotect(reinterpret_cast<void*>(address & ~(page_size - 1)), page_size,
             PROT_READ | PROT_WRITE);
}

}  // namespace xos::bench
