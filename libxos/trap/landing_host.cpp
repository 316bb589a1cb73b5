// The landing after a hop: interprets Linux's response and continues the guest.
#include "libxos/arch/cpu.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/stubs.hpp"
#include "libxos/trap/handlers.hpp"
#include "libxos/trap/hop.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::trap {

using cell::bit_of;
using cell::context;
using cell::kernel_sigaction;
using cell::kernel_siginfo;
using cell::kernel_ucontext;
using cell::table_hold;
using cell::the_cell;

namespace {

// Values of si_code. Positive ones are the kernel's.
constexpr int sent_by_kill = 0, trap_trace = 2, from_kernel = 0x80;

bool is_fault(int signal) {
    return signal == cell::sig_segv || signal == cell::sig_bus || signal == cell::sig_fpe ||
           signal == cell::sig_ill;
}

/// Gives the guest the state of the frame.
void take_back(context& c, const kernel_ucontext& u) {
    cell::resume_at(c, registers_of(u));
    set_extended_state(c, reinterpret_cast<const void*>(u.fpu_state));
}

[[noreturn]] void go_on(context& c, const kernel_ucontext& u) {
    take_back(c, u);
    set_mask(c.signals.mask);
    cell::run_loop(c);
}

/// Offers the fault to the in-guest handlers, as if it were a page fault of the processor.
[[noreturn]] void offer_to_handlers(context& c, const kernel_ucontext& u) {
    const arch::guest_area& area = *c.area;
    const bool nested = u.rsp - area.trap_stack_base < area.trap_stack_size;
    const std::uint64_t top =
        nested ? ((u.rsp - XOS_RED_ZONE) & ~std::uint64_t{15}) - 8 : area.trap_stack_top;
    if (nested && u.rsp - area.trap_stack_base < XOS_TRAP_RESERVE) {
        cell::die(&c, "the trap stack is exhausted: a fault handler keeps faulting");
    }
    auto& f = *reinterpret_cast<trap_frame*>(top - sizeof(trap_frame));
    f.r15 = u.r15, f.r14 = u.r14, f.r13 = u.r13, f.r12 = u.r12;
    f.r11 = u.r11, f.r10 = u.r10, f.r9 = u.r9, f.r8 = u.r8;
    f.rbp = u.rbp, f.rdi = u.rdi, f.rsi = u.rsi, f.rdx = u.rdx;
    f.rcx = u.rcx, f.rbx = u.rbx, f.rax = u.rax;
    f.vector = arch::vector_page_fault | arch::vector_from_linux;
    f.error_code = u.error_code;
    f.fault_address = u.fault_address;
    const bool ring0 = the_cell.current == mode::ring0;
    f.rip = u.rip, f.rsp = u.rsp;
    f.rflags = u.rflags | arch::rflags::fixed;
    f.cs = ring0 ? arch::selector::kernel_code : arch::selector::user_code;
    f.ss = ring0 ? arch::selector::kernel_data : arch::selector::user_data;
    arch::general_registers r;
    r.rip = cell::address_of(xos_trap_dispatch_frame);
    r.rsp = reinterpret_cast<std::uint64_t>(&f);
    r.rflags = arch::rflags::fixed;
    cell::resume_at(c, r);
    set_extended_state(c, reinterpret_cast<const void*>(u.fpu_state));
    set_mask(c.signals.mask);
    cell::run_loop(c);
}

/// Resets the action after one use if it asked for that. The table is locked exclusively then.
void reset_if_once(context& c, int signal) {
    if (!(c.signals.actions->of[signal].flags & cell::sa::resethand)) return;
    c.signals.actions->of[signal].handler = 0;
    if (signal != cell::sig_trap) set_default_action(signal);
}

/// Somebody has sent a signal that the hop left unblocked for the processor's faults. It is an
/// ordinary signal, which the application may have blocked, and the step has not been made.
[[noreturn]] void postpone(context& c, int signal, const kernel_siginfo& info,
                           const kernel_ucontext& u) {
    take_back(c, u);
    if (c.signals.mask & bit_of(signal)) {
        queue_for_linux(c, {signal, info});
        set_mask(c.signals.mask);
    } else {
        c.signals.waiting = {signal, info};
        c.signals.pending = 1;
    }
    cell::run_loop(c);
}

/// A uprobe that executes the instruction out of line sends SIGTRAP as kill() does when it finds
/// the trap flag set (Linux, arch/x86/kernel/uprobes.c, arch_uprobe_post_xol).
bool probe_has_stepped(int signal, const kernel_siginfo& info, const kernel_ucontext& u,
                       std::uint64_t probed) {
    return probed && u.rip != probed && signal == cell::sig_trap && info.code == sent_by_kill &&
           static_cast<std::uint32_t>(info.rest[0]) ==
               static_cast<std::uint32_t>(base::raw_syscall(__NR_getpid));
}

/// Delivers the application's own breakpoint: it wants the frame elsewhere than the step's.
[[noreturn]] void deliver_trap(context& c, const kernel_siginfo& info, const kernel_ucontext& u) {
    const cell::queued_signal trap{cell::sig_trap, info};
    take_back(c, u);
    if (!(c.signals.mask & bit_of(cell::sig_trap))) deliver(c, registers_of(u), trap);
    end_by(c, trap);
}

[[noreturn]] void landed_from_step(context& c, int signal, kernel_siginfo* info, kernel_ucontext& u,
                                   std::uint64_t probed) {
    u.rflags &= ~arch::rflags::trap;
    // It may have been an INT 80h that changed them.
    c.kernel_area->ids.forget_credentials();
    if (probed && arch::read_fs_base() != c.cpu.read_special().fs.base)
        c.cpu.write_fs(arch::read_fs_base());
    const bool finished = (signal == cell::sig_trap && info->code == trap_trace) ||
                          probe_has_stepped(signal, *info, u, probed);
    if (c.hop.held.number) queue_for_linux(c, c.hop.held);
    c.hop.held.number = 0;
    if (!finished && info->code <= 0) postpone(c, signal, *info, u);
    // The instruction succeeded: a stack grew, or a page came back meanwhile.
    if (finished) go_on(c, u);
    // Linux has emulated the instruction under a probe, and the next one faults. The guest's tables
    // know whether it should.
    if (probed && u.rip != probed && is_fault(signal)) go_on(c, u);
    if (signal == cell::sig_trap) deliver_trap(c, *info, u);
    const bool refused = signal == cell::sig_segv || signal == cell::sig_bus;
    if (refused && u.vector == arch::vector_page_fault && !c.hop.pass_to_linux &&
        wants(u.fault_address)) {
        offer_to_handlers(c, u);
    }
    if (refused && c.signals.actions->of[signal].handler <= 1 && !c.hop.pass_to_linux) {
        c.hop.pass_to_linux = true;
        const arch::general_registers r = registers_of(u);
        set_mask(c.signals.mask);
        step_in_host(c, r);
        cell::resume_at(c, r);
        cell::run_loop(c);
    }
    c.hop.pass_to_linux = false;
    run_handler(c, signal, info, u);
}

}  // namespace

void run_handler(context& c, int signal, kernel_siginfo* info, kernel_ucontext& u) {
    const bool once = c.signals.actions->of[signal].flags & cell::sa::resethand;
    if (c.hop.table_lock == table_hold::nothing ||
        (once && c.hop.table_lock == table_hold::shared)) {
        unlock_table(c);
        lock_table(c, table_hold::exclusive);
    }
    const kernel_sigaction action = c.signals.actions->of[signal];
    u.mask = c.signals.mask;
    if (action.handler <= 1) {
        unlock_table(c);
        end_by(c, {signal, *info});
    }
    reset_if_once(c, signal);
    unlock_table(c);
    c.statistics.signals++;
    arch::general_registers r = registers_of(u);
    r.rdi = static_cast<std::uint64_t>(signal);
    r.rsi = reinterpret_cast<std::uint64_t>(info);
    r.rdx = reinterpret_cast<std::uint64_t>(&u);
    r.rax = 0;
    r.rsp = reinterpret_cast<std::uint64_t>(&u) - 8;
    r.rip = action.handler;
    r.rflags &= ~(arch::rflags::direction | arch::rflags::resume | arch::rflags::trap);
    cell::resume_at(c, r);
    set_extended_state(c, nullptr);
    if (static_cast<std::uint32_t>(c.signals.alternate.flags) & cell::ss::autodisarm) {
        c.signals.alternate = {0, cell::ss::disable, 0, 0};
    }
    std::uint64_t mask = c.signals.mask | action.mask;
    if (!(action.flags & cell::sa::nodefer)) mask |= bit_of(signal);
    set_mask(mask);
    cell::run_loop(c);
}

}  // namespace xos::trap

extern "C" {

/// Receives the kernel's response to a hop, on the loop stack, every signal blocked.
[[noreturn]] void xos_landed(int signal, xos::cell::kernel_siginfo* info,
                             xos::cell::kernel_ucontext* u, xos::cell::context* c) {
    using namespace xos;
    c->hop.in_flight = 0;
    c->native.blocks_calls = 0;
    const bool stepped = c->hop.stepping;
    const int delivering = c->hop.delivering;
    const std::uint64_t probed = c->hop.probed;
    c->hop.stepping = false;
    c->hop.delivering = 0;
    c->hop.probed = 0;
    if (c->hop.private_alternate) u->stack = c->signals.alternate;
    trap::alternate_off(*c);
    trap::reveal_page(*c);
    if (c->native.running) cell::the_cell.hooks.landed_natively(*c, signal, info, *u);
    if (stepped) trap::landed_from_step(*c, signal, info, *u, probed);
    // Linux took the signal but could not write its frame. A SIGSEGV that somebody has sent comes
    // first; the other signal is then still Linux's.
    if (signal != delivering && info->code == trap::from_kernel)
        trap::reset_if_once(*c, delivering);
    trap::run_handler(*c, signal, info, *u);
}
}
