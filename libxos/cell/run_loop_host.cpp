// Host mode: runs the vCPU, finds out why it stopped, and calls the layer concerned.
//
// This code runs on the context's loop stack with the application's FS and with GS at the context.
// No libc, no TLS: the application may have been stopped anywhere, even inside malloc.
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/cell/stubs.hpp"

namespace xos::cell {

namespace {

void stopped_at(context& c, position where, bool at_cpl0) {
    c.stop.where = where;
    c.stop.at_cpl0 = at_cpl0;
    c.stop.gs_unswapped = false;
}

/// getcpu(2) in the vDSO reads the limit of a segment, or TSC_AUX, both of which are the guest's
/// own here (Linux, arch/x86/include/asm/segment.h, vdso_read_cpunode).
[[gnu::always_inline]] inline void tell_processor_number(context& c) {
    std::uint32_t number = 0;
    asm volatile("lsl %1, %0"
                 : "+r"(number)
                 : "r"(std::uint32_t{arch::selector::processor_number})
                 : "cc");
    if (number != c.processor_number) [[unlikely]]
        update_processor_number(c, number);
}

void leave_guest(context& c) {
    c.count(exit_kind::leave);
    std::uint64_t all = ~std::uint64_t{0}, mask = 0;
    base::raw_syscall(__NR_rt_sigprocmask, 2, base::as_long(&all), base::as_long(&mask), 8);
    // While a signal waits, the kernel's mask is full and signal_mask is the application's.
    if (c.signals.pending) mask = c.signals.mask;
    arch::write_fs_base(c.area->fs_base);
    arch::write_gs_base(c.thread.host_gs_base);
    c.kernel_area->holds_translations = 0;
    the_cell.hooks.leaving(c);
    xos_continue_in_host(c.area->leave_rsp, &c.busy, mask);
}

/// For stops where no stub would flush: KVM drops this vCPU's translations when CR4 changes, and no
/// page is global.
void flush_translations(context& c) {
    c.kernel_area->flush_wanted = 0;
    c.cpu.toggle_global_pages();
}

void handle_port(context& c, unsigned port) {
    const bool ring3 = the_cell.is_ring3();
    switch (port) {
        case XOS_PORT_SYSCALL:
            stopped_at(c, position::system_call, ring3);
            c.count(exit_kind::system_call);
            c.kernel_area->holds_translations = 0;
            the_cell.hooks.system_call(c);
            return;
        case XOS_PORT_TRAP:
            // ring3: an exception of kernel-side code is dispatched at CPL 0, with its own area.
            stopped_at(c, position::trap, ring3 && c.kernel_area->in_kernel);
            c.count(exit_kind::trap);
            the_cell.hooks.trap(c);
            return;
        case XOS_PORT_TRAP_POLL:
            // Kernel-side code that had an exception continues to a poll of its own.
            stopped_at(c, position::trap_poll, ring3 && c.kernel_area->in_kernel);
            c.count(exit_kind::poll);
            clear_poll(c);
            return;
        case XOS_PORT_SYSCALL_POLL:
            stopped_at(c, position::local_call, ring3);
            c.count(exit_kind::poll);
            clear_poll(c);
            return;
        case XOS_PORT_POLL:
            stopped_at(c, position::after_out, false);
            c.count(exit_kind::poll);
            clear_poll(c);
            return;
        case XOS_PORT_HOST_CALL:
            stopped_at(c, position::after_out, false);
            c.count(exit_kind::host_call);
            c.area->host_call(c.area->host_call_argument);
            c.kernel_area->ids.forget_credentials();  // it may have made any call
            return;
        case XOS_PORT_KERNEL_CALL: {
            stopped_at(c, position::kernel_side, ring3);
            c.count(exit_kind::kernel_call);
            const arch::guest_area& area = *c.kernel_area;
            area.host_call(area.host_call_argument);
            return;
        }
        case XOS_PORT_NULL:
            stopped_at(c, position::after_out, false);
            c.count(exit_kind::null);
            return;
        case XOS_PORT_LEAVE:
            stopped_at(c, position::application, false);
            leave_guest(c);
            return;
        case XOS_PORT_DIE:
            die(&c, "the trap stack is exhausted: a fault handler keeps faulting");
        default:
            // The application used a port that is not libxos's. Linux decides what happens.
            stopped_at(c, position::application, false);
            c.count(exit_kind::privileged);
            the_cell.hooks.refused(c);
    }
}

void handle_exit(context& c) {
    const kvm_run& page = c.cpu.run_page();
    switch (page.exit_reason) {
        case KVM_EXIT_IO:
            if (page.io.direction == KVM_EXIT_IO_OUT) return handle_port(c, page.io.port);
            [[fallthrough]];
        case KVM_EXIT_HLT:
            stopped_at(c, position::application, false);
            c.count(exit_kind::privileged);
            return the_cell.hooks.refused(c);
        case KVM_EXIT_INTR:
            stopped_at(c, position::unknown, false);
            c.count(exit_kind::signal);
            return;
        case KVM_EXIT_INTERNAL_ERROR:
            die(&c, "KVM could not emulate an instruction (KVM_EXIT_INTERNAL_ERROR)",
                page.internal.suberror);
        case KVM_EXIT_SHUTDOWN:
            die(&c, "triple fault (KVM_EXIT_SHUTDOWN)");
        case KVM_EXIT_FAIL_ENTRY:
            die(&c, "the processor refused the vCPU's state (KVM_EXIT_FAIL_ENTRY)",
                page.fail_entry.hardware_entry_failure_reason);
        case KVM_EXIT_MMIO:
            die(&c, "access to a guest-physical address without memory (KVM_EXIT_MMIO)",
                page.mmio.phys_addr);
        default:
            die(&c, "unexpected exit", page.exit_reason);
    }
}

void handle_error(context& c, long error) {
    switch (-error) {
        case 4:  // EINTR: a signal, or immediate_exit
            stopped_at(c, position::unknown, false);
            c.count(exit_kind::signal);
            if (the_cell.calls.module.attached()) the_cell.hooks.interrupted(c);
            if (c.loop.timer_came) the_cell.hooks.on_timer(c);
            return;
        case 14:  // EFAULT: no address comes with it
            stopped_at(c, position::unknown, false);
            c.count(exit_kind::refused);
            the_cell.hooks.refused(c);
            return;
        case 12:
            die(&c, "the kernel is out of memory (KVM_RUN: -ENOMEM)");
        default:
            die(&c, "KVM_RUN failed", static_cast<std::uint64_t>(-error));
    }
}

}  // namespace

void run_loop(context& c) {
    for (;;) {
        if (c.signals.pending) the_cell.hooks.signals(c);
        c.statistics.runs++;
        if (the_cell.guest.tells_processor_number) tell_processor_number(c);
        // A vCPU that wants a flush sets the flag before it checks whether this one holds
        // translations.
        __atomic_exchange_n(&c.kernel_area->holds_translations, 1, __ATOMIC_SEQ_CST);
        if (c.kernel_area->flush_wanted && c.stop.where != position::system_call) [[unlikely]]
            flush_translations(c);
        const long result = c.cpu.run();
        const kvm_run& page = c.cpu.run_page();
        c.note_exit(page.exit_reason, page.exit_reason == KVM_EXIT_IO ? page.io.port : 0, result,
                    page.exit_reason == KVM_EXIT_IO && page.io.port == XOS_PORT_SYSCALL
                        ? c.kernel_area->number
                        : 0);
        if (result < 0) {
            handle_error(c, result);
        } else {
            handle_exit(c);
        }
    }
}

}  // namespace xos::cell

extern "C" {

/// Called by xos_switch_to_guest, on the loop stack.
[[noreturn]] void xos_begin_guest(xos::cell::context* c) {
    using namespace xos;
    arch::general_registers r;
    r.rip = cell::address_of(xos_resume_in_guest);
    r.rsp = c->thread.application_rsp;
    r.rflags = arch::rflags::fixed | arch::rflags::interrupt;
    c->statistics.entries++;
    cell::resume_at(*c, r);
    cell::run_loop(*c);
}

/// Runs on the loop stack of a thread created inside, all signals blocked. Its registers are
/// already set.
[[noreturn]] void xos_begin_thread(xos::cell::context* c) {
    using namespace xos;
    arch::write_gs_base(reinterpret_cast<std::uint64_t>(c));
    c->thread.id = static_cast<std::uint32_t>(base::raw_syscall(__NR_gettid));
    c->statistics.entries++;
    if (c->thread.handlers_cleared) cell::take_over_signals(*c->signals.actions);
    std::uint64_t mask = c->signals.mask;
    base::raw_syscall(__NR_rt_sigprocmask, 2, base::as_long(&mask), 0, 8);
    cell::run_loop(*c);
}
}
