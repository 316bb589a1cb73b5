// Labels of entry_guest.S and copy_guest.S.
#pragma once

#include <cstdint>

extern "C" {
extern const char xos_stubs_begin[], xos_stubs_end[];
extern const char xos_resume_in_guest[];
extern const char xos_syscall_flat[], xos_syscall_flat_begin[], xos_syscall_flat_saved[],
    xos_syscall_flat_tail[], xos_syscall_flat_tail_end[], xos_syscall_flat_out[],
    xos_syscall_flat_done[], xos_syscall_flat_forward_end[];
extern const char xos_syscall_ring3[], xos_syscall_ring3_begin[], xos_syscall_ring3_saved[],
    xos_syscall_ring3_tail[], xos_syscall_ring3_tail_end[], xos_syscall_ring3_out[],
    xos_syscall_ring3_done[], xos_syscall_ring3_forward_end[], xos_syscall_ring3_local_sysret[],
    xos_syscall_ring3_forward_sysret[];
extern const char xos_return_swapped[], xos_return_unswapped[];
extern const char xos_trap_dispatch_frame[], xos_trap_restore[], xos_trap_iret[],
    xos_trap_restore_end[];
extern const char xos_vectors_ring0[], xos_vectors_ring3[], xos_vectors_pvm[];
extern const char xos_landing_page_fault[], xos_landing_protection[], xos_landing_opcode[],
    xos_landing_breakpoint[], xos_landing_other[];
extern const char xos_probe_loop[];
extern const char xos_copy_insn[], xos_copy_stopped[];  // copy_guest.S
}

namespace xos::cell {

inline std::uint64_t address_of(const char* label) {
    return reinterpret_cast<std::uint64_t>(label);
}

/// The stretches of one SYSCALL entry, which a signal may interrupt.
struct syscall_stub {
    std::uint64_t entry, begin, saved, tail, tail_end, out, done, forward_end;
};

inline syscall_stub flat_stub() {
    return {address_of(xos_syscall_flat),          address_of(xos_syscall_flat_begin),
            address_of(xos_syscall_flat_saved),    address_of(xos_syscall_flat_tail),
            address_of(xos_syscall_flat_tail_end), address_of(xos_syscall_flat_out),
            address_of(xos_syscall_flat_done),     address_of(xos_syscall_flat_forward_end)};
}
inline syscall_stub ring3_stub() {
    return {address_of(xos_syscall_ring3),          address_of(xos_syscall_ring3_begin),
            address_of(xos_syscall_ring3_saved),    address_of(xos_syscall_ring3_tail),
            address_of(xos_syscall_ring3_tail_end), address_of(xos_syscall_ring3_out),
            address_of(xos_syscall_ring3_done),     address_of(xos_syscall_ring3_forward_end)};
}

}  // namespace xos::cell
