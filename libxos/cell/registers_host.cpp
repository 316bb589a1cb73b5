// Finds the application's registers when the vCPU may have stopped anywhere.
#include "libxos/arch/page_table_entry.hpp"
#include "libxos/base/bytes.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/cell/stubs.hpp"

namespace xos::cell {

using arch::general_registers;

namespace {

/// The call has happened: its result and return address are in the area.
void finish_call(const arch::guest_area& area, std::uint64_t result, general_registers& r) {
    r.rax = result;
    r.rip = r.rcx = area.rip;
    r.rflags = r.r11 = area.flags;
    r.rsp = area.rsp;
}

/// A local call has happened: its result is in RAX, and the SYSCALL entry has pushed the rest.
void finish_local_call(const arch::guest_area& area, general_registers& r) {
    const auto saved = [&](unsigned slot) {
        return base::load<std::uint64_t>(area.syscall_stack_top - 8 * (slot + 1));
    };
    r.rip = r.rcx = area.rip;
    r.rflags = r.r11 = saved(0);
    r.rsp = area.rsp;
    r.rdi = saved(1), r.rsi = saved(2), r.rdx = saved(3);
    r.r8 = saved(4), r.r9 = saved(5), r.r10 = saved(6);
}

enum class resolved { no, yes, not_here };

resolved resolve_syscall_stub(context& c, const syscall_stub& s, general_registers& r) {
    const auto& area = *c.kernel_area;
    if (r.rip < s.entry || r.rip >= s.forward_end) return resolved::not_here;
    c.stop.gs_unswapped =
        the_cell.is_ring3() &&
        (r.rip == s.entry || r.rip == address_of(xos_syscall_ring3_local_sysret) ||
         r.rip == address_of(xos_syscall_ring3_forward_sysret));
    if (r.rip >= s.tail && r.rip < s.tail_end) {
        finish_local_call(area, r);
        return resolved::yes;
    }
    if (r.rip >= s.done) {
        finish_call(area, area.result, r);
        return resolved::yes;
    }
    if (arch::on_syscall_stack(area, r.rsp)) return resolved::no;
    // Nothing has happened yet: the application makes the call again after the handler.
    r.rip = (r.rip < s.saved ? r.rcx : area.rip) - 2;
    r.rflags = r.r11;
    return resolved::yes;
}

resolved resolve_stubs(context& c, general_registers& r) {
    const auto& stub = the_cell.is_ring3() ? ring3_stub() : flat_stub();
    if (auto done = resolve_syscall_stub(c, stub, r); done != resolved::not_here) return done;
    if (r.rip >= address_of(xos_trap_restore) && r.rip < address_of(xos_trap_restore_end)) {
        const std::uint64_t behind = r.rip == address_of(xos_trap_iret) ? XOS_FRAME_RIP : 0;
        r = arch::registers_of(*reinterpret_cast<const arch::trap_frame*>(r.rsp - behind));
        return resolved::yes;
    }
    if (r.rip == address_of(xos_return_swapped) || r.rip == address_of(xos_return_unswapped)) {
        c.stop.gs_unswapped = r.rip == address_of(xos_return_unswapped);
        const auto* iret = reinterpret_cast<const std::uint64_t*>(r.rsp);
        r.rip = iret[0], r.rflags = iret[2], r.rsp = iret[3];
        return resolved::yes;
    }
    return resolved::no;
}

/// `r` is where the vCPU is, or the code that an exception interrupted.
bool resolve(context& c, general_registers& r, bool in_kernel) {
    if (r.rip >= address_of(xos_stubs_begin) && r.rip < address_of(xos_stubs_end)) {
        return resolve_stubs(c, r) == resolved::yes;
    }
    return !in_kernel && !arch::on_syscall_stack(*c.kernel_area, r.rsp);
}

bool resolve_unknown(context& c, general_registers& r) {
    r = c.cpu.read_registers();
    c.stop.gs_unswapped = false;
    c.stop.at_cpl0 = the_cell.is_ring3() && (c.cpu.read_special().cs.selector & 3) == 0;
    // KVM would deliver the exception before whatever the guest is made to do next. The guest
    // enters the dispatcher now, which polls at its end.
    if (c.cpu.exception_in_flight()) return false;
    return resolve(c, r, c.area->in_kernel || c.kernel_area->in_kernel);
}

}  // namespace

bool application_registers(context& c, general_registers& r) {
    const auto& area = *c.kernel_area;
    switch (c.stop.where) {
        case position::application:
            r = c.cpu.read_registers();
            return true;
        case position::after_out: {
            // Some KVMs have not moved RIP past the OUT yet (E7 ib).
            r = c.cpu.read_registers();
            const auto code = base::load<std::uint16_t>(r.rip);
            if ((code & 0xff) == 0xe7 && code >> 8 == c.cpu.run_page().io.port) r.rip += 2;
            return true;
        }
        case position::system_call:
            r = c.cpu.read_registers();
            finish_call(area, area.result, r);
            return true;
        case position::taken_back:
            r = c.cpu.read_registers();
            finish_call(area, area.number, r);
            r.rip -= 2;
            return true;
        case position::local_call:
            r = c.cpu.read_registers();
            finish_local_call(area, r);
            return true;
        case position::trap:
        case position::trap_poll: {
            const auto& asking = c.stop.at_cpl0 ? *c.kernel_area : *c.area;
            r = arch::registers_of(*asking.frame);
            return resolve(c, r, asking.interrupted_kernel);
        }
        case position::kernel_side:
            return false;
        case position::unknown:
            return resolve_unknown(c, r);
    }
    return false;
}

void resume_at(context& c, const general_registers& r) {
    c.area->in_kernel = c.kernel_area->in_kernel = 0;
    c.stop.where = position::application;
    if (!c.stop.at_cpl0) {
        c.cpu.write_registers(r);
        return;
    }
    // Returns by IRET: the stub's own stack is free, since nothing of the stopped call is needed
    // any more.
    auto* iret = reinterpret_cast<std::uint64_t*>(c.kernel_area->syscall_stack_top - 40);
    iret[0] = r.rip;
    iret[1] = arch::selector::user_code;
    iret[2] = r.rflags | arch::rflags::fixed;
    iret[3] = r.rsp;
    iret[4] = arch::selector::user_data;
    general_registers stub = r;
    stub.rip = address_of(c.stop.gs_unswapped ? xos_return_unswapped : xos_return_swapped);
    stub.rsp = reinterpret_cast<std::uint64_t>(iret);
    stub.rflags = arch::rflags::fixed;
    c.cpu.write_registers(stub);
    c.stop.where = position::unknown;
    c.stop.at_cpl0 = c.stop.gs_unswapped = false;
}

void request_poll(context& c) {
    __atomic_store_n(&c.area->pending, 1, __ATOMIC_RELAXED);
    __atomic_store_n(&c.kernel_area->pending, 1, __ATOMIC_RELAXED);
}

void clear_poll(context& c) {
    __atomic_store_n(&c.area->pending, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&c.kernel_area->pending, 0, __ATOMIC_RELAXED);
}

}  // namespace xos::cell
