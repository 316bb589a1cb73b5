// Exceptions and refusals that the guest could not handle itself.
#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/stubs.hpp"
#include "libxos/trap/hop.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::trap {

using cell::context;
using cell::the_cell;
using chunk_result = memory::address_space::chunk_result;

namespace {

constexpr std::uint8_t hlt = 0xf4, int3 = 0xcc;

/// The opcode is one byte; IN and OUT with a constant port have an immediate byte.
constexpr bool is_port_opcode(std::uint8_t b) {
    return (b & 0xfc) == 0xec || (b & 0xfc) == 0x6c;
}
constexpr bool is_port_opcode_immediate(std::uint8_t b) {
    return (b & 0xfc) == 0xe4;
}
constexpr bool is_prefix(std::uint8_t b) {
    return b == 0x66 || b == 0x67 || b == 0xf2 || b == 0xf3;
}

/// When KVM exits for a port instruction, its emulator has moved RIP past it and its fast path has
/// not. Linux must refuse the instruction at its own address.
std::uint64_t port_instruction_at(std::uint64_t rip) {
    const auto byte = [](std::uint64_t at) { return base::load<std::uint8_t>(at); };
    std::uint64_t opcode = rip;
    while (opcode - rip < 4 && is_prefix(byte(opcode))) opcode++;
    if (is_port_opcode(byte(opcode)) || is_port_opcode_immediate(byte(opcode))) return rip;
    if (is_port_opcode_immediate(byte(rip - 2)))
        rip -= 2;
    else if (is_port_opcode(byte(rip - 1)))
        rip -= 1;
    while (is_prefix(byte(rip - 1))) rip -= 1;
    return rip;
}
constexpr unsigned many = 10000;

arch::guest_area& area_of(context& c) {
    return c.stop.at_cpl0 ? *c.kernel_area : *c.area;
}

/// Ends the process when a fault repeats endlessly, rather than let it hang.
void count_repeats(context& c, std::uint64_t address) {
    if (c.repeats.address != address) {
        c.repeats.address = address;
        c.repeats.count = 0;
    }
    if (++c.repeats.count > many)
        cell::die(&c, "a page fault repeats although its memory is mapped", address);
}

enum class visibility { no, visible, later };
visibility made_visible(context& c, std::uint64_t address, std::uint64_t error_code) {
    base::outcome failure;
    const bool to_execute = error_code & arch::page_fault::fetch;
    switch (the_cell.space().add_chunk(gva{address}, failure)) {
        case chunk_result::added:
            // If Linux does not let the guest execute it, the guest faults once more, on a present
            // page.
            if (to_execute) the_cell.space().find_code(gva{address});
            return visibility::visible;
        case chunk_result::already_there:
            if (error_code & arch::page_fault::present && !the_cell.space().find_code(gva{address}))
                return visibility::no;
            count_repeats(c, address);
            return visibility::visible;
        case chunk_result::later:
            return visibility::later;
        case chunk_result::failed:
            cell::die(&c,
                      "no room to make memory visible to the guest (slots, page tables or "
                      "guest-physical addresses are used up)",
                      address);
        case chunk_result::not_user_memory:
            if (!(error_code & arch::page_fault::present) && the_cell.hooks.touch(address))
                return visibility::visible;
            return to_execute && the_cell.hooks.find_code(address) ? visibility::visible
                                                                   : visibility::no;
    }
    return visibility::no;
}

/// INT1 (F1) is reported after the instruction; a software KVM reports it at the instruction.
std::uint64_t icebp_at(std::uint64_t rip) {
    constexpr std::uint8_t icebp = 0xf1;
    return base::load<std::uint8_t>(rip - 1) == icebp ? rip - 1 : rip;
}
bool is_icebp(std::uint64_t rip) {
    return base::load<std::uint8_t>(icebp_at(rip)) == 0xf1;
}

/// ring3: Linux would let the process write there, so Linux must not be asked.
bool in_kernel_memory(std::uint64_t address) {
    const auto& arena = the_cell.arena;
    return the_cell.is_ring3() && address >= arena.begin().value &&
           address < arena.user_begin().value;
}

/// Has Linux raise the signal that belongs to this exception.
void raise(context& c, trap_frame& f) {
    arch::general_registers r = arch::registers_of(f);
    if (f.vector == arch::vector_debug && is_icebp(r.rip)) {
        r.rip = icebp_at(r.rip);
    } else if (f.vector == arch::vector_debug) {
        // The exception is a trap, not a fault: the instruction must not be executed again.
        constexpr int trap_trace = 2;
        return force(c, r, cell::sig_trap, trap_trace, r.rip);
    }
    if (f.vector == arch::vector_page_fault && in_kernel_memory(f.fault_address)) {
        constexpr int access_error = 2;
        return force(c, r, cell::sig_segv, access_error, f.fault_address);
    }
    // INT3 and INTO are reported after the instruction (CC, or CD ib), which Linux must execute.
    if (f.vector == arch::vector_breakpoint)
        r.rip -= base::load<std::uint8_t>(r.rip - 1) == int3 ? 1 : 2;
    if (f.vector == arch::vector_overflow) r.rip -= 2;
    // If a signal comes first, the guest executes the instruction again.
    f.rip = r.rip;
    if (f.vector == arch::vector_breakpoint) return break_in_host(c, r);
    if (f.vector == arch::vector_page_fault) {
        c.hop.pass_to_linux = true;
        // Linux's own tables allow everything there. Undone on landing.
        if (const auto why = the_cell.hooks.why_refused(f.fault_address); why.owned) {
            c.hop.concealed = the_cell.hooks.conceal(f.fault_address & ~(page_size - 1));
            constexpr int not_mapped = 1;
            // Another thread is at this page, so Linux cannot be asked.
            if (!c.hop.concealed.page)
                return force(c, r, cell::sig_segv, not_mapped, f.fault_address);
        }
    }
    step_in_host(c, r);
    reveal_page(c);
}

/// Linux refuses memory of the program's that kernel-side code copies.
bool stop_copying(context& c) {
    arch::general_registers r = c.cpu.read_registers();
    if (r.rip != cell::address_of(xos_copy_insn)) return false;
    r.rip = cell::address_of(xos_copy_stopped);
    c.cpu.write_registers(r);
    return true;
}

}  // namespace

void force(context& c, const arch::general_registers& r, int signal, int code,
           std::uint64_t address) {
    cell::queued_signal s{signal, {}};
    base::zero_bytes(&s.info, sizeof s.info);
    s.info.number = signal;
    s.info.code = code;
    s.info.rest[0] = address;
    const std::uint64_t mask = block_signals(c);
    if (c.signals.pending) {
        queue_for_linux(c, c.signals.waiting);
        forget_waiting(c);
    }
    c.signals.mask = mask;
    if (mask & cell::bit_of(signal)) end_by(c, s);
    deliver(c, r, s);
    end_by(c, s);
}

void on_trap(context& c) {
    arch::guest_area& area = area_of(c);
    trap_frame& frame = *area.frame;
    switch (area.trap_message) {
        case arch::trap_request_memory:
            area.trap_message = arch::trap_answer_retry;
            switch (made_visible(c, frame.fault_address, frame.error_code)) {
                case visibility::visible:
                    return;
                case visibility::no:
                    area.trap_message = arch::trap_answer_handlers;
                    return;
                case visibility::later:
                    break;
            }
            // Until KVM has the slot, Linux executes what needs it, one instruction at a time.
            if (area.interrupted_kernel)
                base::raw_syscall(__NR_sched_yield);
            else
                step_in_host(c, arch::registers_of(frame));
            return;
        case arch::trap_request_raise:
            // Returns only if a signal must be delivered first; the instruction then faults again.
            area.trap_message = arch::trap_answer_retry;
            raise(c, frame);
            return;
        case arch::trap_request_kernel_fault:
            cell::die_at(&c, "kernel-side code of libxos, or a local system call, faulted", frame);
        default:
            cell::die(&c, "unknown request of the trap dispatcher", area.trap_message);
    }
}

void on_refused(context& c) {
    arch::general_registers r;
    if (c.stop.where == cell::position::unknown && stop_copying(c)) return;
    if (!cell::application_registers(c, r)) {
        cell::die(&c, "kernel-side code touched memory that Linux refuses");
    }
    // KVM has already moved past HLT, which Linux must refuse at its own address.
    if (c.cpu.run_page().exit_reason == KVM_EXIT_HLT &&
        base::load<std::uint8_t>(r.rip - 1) == hlt) {
        r.rip -= 1;
    }
    if (c.cpu.run_page().exit_reason == KVM_EXIT_IO &&
        c.stop.where == cell::position::application) {
        r.rip = port_instruction_at(r.rip);
    }
    step_in_host(c, r);
}

}  // namespace xos::trap
