// Into the guest's state in host mode, and back.
#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/stubs.hpp"
#include "libxos/trap/handlers.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::trap {

using base::as_long;
using base::raw_syscall;
using cell::bit_of;
using cell::context;
using cell::kernel_sigaction;
using cell::kernel_siginfo;
using cell::kernel_stack;
using cell::kernel_ucontext;
using cell::the_cell;

std::uint64_t set_mask(std::uint64_t mask) {
    std::uint64_t old = 0;
    raw_syscall(__NR_rt_sigprocmask, 2, as_long(&mask), as_long(&old), 8);
    return old;
}

void set_default_action(int signal) {
    const kernel_sigaction standard{0, 0, 0, 0};
    raw_syscall(__NR_rt_sigaction, signal, as_long(&standard), 0, 8);
}

std::uint64_t block_signals(context& c) {
    const std::uint64_t old = set_mask(~std::uint64_t{0});
    return c.signals_pending ? c.signal_mask : old;
}

void apply_mask(context& c, std::uint64_t mask) {
    // Looking for a signal and opening the mask must be one: between the two, a signal would be
    // noted with the old mask, and the next one would come while it waits.
    const std::uint64_t call[7] = {__NR_rt_sigprocmask, 2, reinterpret_cast<std::uint64_t>(&mask),
                                   0, 8};
    if (xos_forward(&c, call) == cell::taken_back) c.signal_mask = mask;
}

namespace {

constexpr std::uint64_t all_signals = ~std::uint64_t{0};
constexpr std::uint64_t faults =
    bit_of(cell::sig_segv) | bit_of(cell::sig_bus) | bit_of(cell::sig_fpe) | bit_of(cell::sig_ill);

/// Gives the extended state the form that the kernel reads from a signal frame: struct
/// _fpx_sw_bytes at offset 464, a second magic number behind the area
/// (arch/x86/include/uapi/asm/sigcontext.h).
void make_frame_state(context& c) {
    const std::uint32_t size = the_cell.caps.xsave_size;
    auto* software = reinterpret_cast<volatile std::uint32_t*>(c.fpu.bytes + arch::xsave_software);
    software[0] = arch::fpx_magic1;
    software[1] = size + 4;
    software[2] = static_cast<std::uint32_t>(the_cell.caps.xcr0);
    software[3] = static_cast<std::uint32_t>(the_cell.caps.xcr0 >> 32);
    software[4] = size;
    *reinterpret_cast<volatile std::uint32_t*>(c.fpu.bytes + size) = arch::fpx_magic2;
}

/// With the extended state in c.fpu and FS as it shall be.
[[noreturn]] void launch(context& c, const arch::general_registers& r, std::uint64_t mask,
                         bool step) {
    c.hops++;
    make_frame_state(c);
    kernel_ucontext& u = c.hop.context;
    base::zero_bytes(&u, sizeof u);
    u.flags = cell::uc::fp_xstate | cell::uc::sigcontext_ss | cell::uc::strict_restore_ss;
    put_registers(u, r);
    u.rflags = (r.rflags & arch::rflags::user) | arch::rflags::fixed | arch::rflags::interrupt |
               (step ? arch::rflags::trap : 0);
    u.cs = 0x33;
    u.ss = 0x2b;
    u.fpu_state = reinterpret_cast<std::uint64_t>(c.fpu.bytes);
    u.mask = mask;
    u.stack = c.alternate;
    const bool faults_on_alternate =
        ((c.actions->of[cell::sig_segv].flags | c.actions->of[cell::sig_bus].flags) &
         cell::sa::onstack) != 0;
    if (step && (c.alternate.flags & cell::ss::disable) && !faults_on_alternate) {
        // The SIGTRAP frame may not fit where the application's stack ends, so it goes to a stack
        // of ours. A handler of the application without SA_ONSTACK still gets its frame on the
        // application's.
        u.stack = {reinterpret_cast<std::uint64_t>(c.step_stack), 0, 0, sizeof c.step_stack};
        c.private_alternate = true;
    }
    c.stepping = step;
    c.hopping = 1;
    c.blocks_calls = c.native;
    xos_sigreturn(&u);
}

[[noreturn]] void hop(context& c, const arch::general_registers& r, std::uint64_t mask, bool step) {
    c.cpu.read_xsave(c.fpu);
    // The instruction may use FS, which the application may have changed without a system call.
    arch::write_fs_base(c.cpu.read_special().fs.base);
    launch(c, r, mask, step);
}

void alternate_off(context& c) {
    if ((c.alternate.flags & cell::ss::disable) && !c.private_alternate) return;
    c.private_alternate = false;
    const kernel_stack off{0, cell::ss::disable, 0, 0};
    raw_syscall(__NR_sigaltstack, as_long(&off), 0);
}

void lock_table(context& c, context::holding how) {
    if (how == context::holding::exclusive)
        c.actions->lock.lock();
    else
        c.actions->lock.lock_shared();
    c.table_lock = how;
}

void unlock_table(context& c) {
    const auto how = c.table_lock;
    c.table_lock = context::holding::nothing;
    if (how == context::holding::exclusive) c.actions->lock.unlock();
    if (how == context::holding::shared) c.actions->lock.unlock_shared();
}

/// The in-guest handlers hear of it as of a page fault of the processor.
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
    f.rflags = (u.rflags & ~arch::rflags::trap) | arch::rflags::fixed;
    f.cs = ring0 ? arch::selector::kernel_code : arch::selector::user_code;
    f.ss = ring0 ? arch::selector::kernel_data : arch::selector::user_data;
    arch::general_registers r;
    r.rip = cell::address_of(xos_trap_dispatch_frame);
    r.rsp = reinterpret_cast<std::uint64_t>(&f);
    r.rflags = arch::rflags::fixed;
    cell::resume_at(c, r);
    set_extended_state(c, reinterpret_cast<const void*>(u.fpu_state));
    set_mask(c.signal_mask);
    cell::run_loop(c);
}

}  // namespace

void run_handler(context& c, int signal, kernel_siginfo* info, kernel_ucontext& u) {
    if (c.table_lock == context::holding::nothing) lock_table(c, context::holding::exclusive);
    const kernel_sigaction action = c.actions->of[signal];
    u.mask = c.signal_mask;
    if (action.handler <= 1) {
        unlock_table(c);
        end_by(c, {signal, *info});
    }
    if (action.flags & cell::sa::resethand) {
        c.actions->of[signal].handler = 0;
        if (signal != cell::sig_trap) set_default_action(signal);
    }
    unlock_table(c);
    c.signals++;
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
    if (static_cast<std::uint32_t>(c.alternate.flags) & cell::ss::autodisarm) {
        c.alternate = {0, cell::ss::disable, 0, 0};
    }
    std::uint64_t mask = c.signal_mask | action.mask;
    if (!(action.flags & cell::sa::nodefer)) mask |= bit_of(signal);
    set_mask(mask);
    cell::run_loop(c);
}

void continue_natively(context& c, const arch::general_registers& r) {
    launch(c, r, c.signal_mask & ~bit_of(cell::sig_sys), false);
}

void leave_natively(context& c, const arch::general_registers& r) {
    launch(c, r, c.signal_mask, false);
}

void return_natively(context& c, kernel_ucontext& frame) {
    frame.mask = c.signal_mask & ~bit_of(cell::sig_sys);
    frame.stack = c.alternate;
    c.hopping = 1;
    c.blocks_calls = 1;
    xos_sigreturn(&frame);
}

bool set_extended_state(context& c, const void* fpu_state) {
    constexpr std::uint64_t x87_and_sse = 3;
    base::zero_bytes(&c.fpu, sizeof c.fpu);
    auto* components = reinterpret_cast<volatile std::uint64_t*>(c.fpu.bytes + arch::xsave_header);
    if (!fpu_state) {
        *reinterpret_cast<volatile std::uint16_t*>(c.fpu.bytes) = 0x37f;
        *reinterpret_cast<volatile std::uint32_t*>(c.fpu.bytes + arch::xsave_mxcsr) = 0x1f80;
        *components = x87_and_sse;
    } else {
        const auto* software = reinterpret_cast<const std::uint32_t*>(
            static_cast<const std::uint8_t*>(fpu_state) + arch::xsave_software);
        std::uint32_t size = 512;
        if (software[0] == arch::fpx_magic1 && software[4] >= 576) size = software[4];
        if (size > the_cell.caps.xsave_size) size = the_cell.caps.xsave_size;
        base::copy_bytes(c.fpu.bytes, fpu_state, size);
        base::zero_bytes(c.fpu.bytes + arch::xsave_software, 48);
        *components = size == 512 ? x87_and_sse : *components & the_cell.caps.xcr0;
    }
    return c.cpu.write_xsave(c.fpu);
}

void reveal_page(context& c) {
    if (!c.concealed.page) return;
    the_cell.hooks.reveal(c.concealed);
    c.concealed = {};
}

void step_in_host(context& c, const arch::general_registers& r) {
    const std::uint64_t mask = block_signals(c);
    if (c.signals_pending) return;
    c.signal_mask = mask;
    // In-guest handlers hear of a refusal only through a handler of the kernel's; but a process
    // that is to end by the default action must end where the guest is, for the sake of its core
    // dump.
    const bool handlers_first = !c.pass_to_linux && any_page_fault_handler();
    lock_table(c, context::holding::exclusive);
    for (int signal : {cell::sig_segv, cell::sig_bus}) {
        if (c.actions->of[signal].handler > 1) continue;
        if (handlers_first) {
            const kernel_sigaction ours = cell::trampoline_for({0, cell::sa::onstack, 0, 0});
            raw_syscall(__NR_rt_sigaction, signal, as_long(&ours), 0, 8);
        } else {
            set_default_action(signal);
        }
    }
    unlock_table(c);
    // A fault signal that the application has blocked stays blocked: Linux then ends the process.
    const std::uint64_t open = (faults & ~mask) | bit_of(cell::sig_trap);
    hop(c, r, all_signals & ~open, true);
}

void call_in_host(context& c, const arch::general_registers& r, int signal) {
    const std::uint64_t mask = block_signals(c);
    if (c.signals_pending) return;
    c.signal_mask = mask;
    hop(c, r, all_signals & ~(bit_of(signal) | bit_of(cell::sig_trap)), true);
}

void end_by(context& c, const cell::queued_signal& s) {
    set_default_action(s.number);
    set_mask(0);
    raw_syscall(__NR_rt_tgsigqueueinfo, raw_syscall(__NR_getpid), c.thread_id, s.number,
                as_long(&s.info));
    cell::die(&c, "a fatal signal did not end the process", static_cast<unsigned>(s.number));
}

void deliver(context& c, const arch::general_registers& r, const cell::queued_signal& s) {
    lock_table(c, context::holding::shared);
    if (c.actions->of[s.number].flags & cell::sa::resethand) {
        // Its handler runs once, whoever else has the same signal to deliver.
        unlock_table(c);
        lock_table(c, context::holding::exclusive);
    }
    if (c.actions->of[s.number].handler <= 1) return unlock_table(c);
    const long queued = raw_syscall(__NR_rt_tgsigqueueinfo, raw_syscall(__NR_getpid), c.thread_id,
                                    s.number, as_long(&s.info));
    if (queued < 0)
        cell::die(&c, "a signal could not be queued again", static_cast<unsigned>(-queued));
    hop(c, r, all_signals & ~bit_of(s.number), false);
}

bool return_from_handler(context& c, const kernel_ucontext& u, const void* fpu_state) {
    if (!set_extended_state(c, fpu_state)) return false;
    arch::general_registers r = registers_of(u);
    r.rflags = (r.rflags & arch::rflags::user) | arch::rflags::fixed | arch::rflags::interrupt;
    cell::resume_at(c, r);
    c.alternate = u.stack;
    if (u.stack.flags & cell::ss::disable) c.alternate = {0, cell::ss::disable, 0, 0};
    c.alternate.flags &= ~cell::ss::onstack;
    apply_mask(c, u.mask);
    return true;
}

}  // namespace xos::trap

extern "C" {

/// On the loop stack, every signal blocked: the kernel's answer to a hop.
[[noreturn]] void xos_landed(int signal, xos::cell::kernel_siginfo* info,
                             xos::cell::kernel_ucontext* u, xos::cell::context* c) {
    using namespace xos;
    constexpr int trap_trace = 2;
    c->hopping = 0;
    c->blocks_calls = 0;
    const bool stepped = c->stepping;
    c->stepping = false;
    const bool moved = c->private_alternate;
    trap::alternate_off(*c);
    trap::reveal_page(*c);
    if (c->native) cell::the_cell.hooks.landed_natively(*c, signal, info, *u);
    if (stepped && signal == cell::sig_trap && info->code == trap_trace) {
        // It succeeded: a stack grew, or a page came back meanwhile.
        arch::general_registers r = registers_of(*u);
        r.rflags &= ~arch::rflags::trap;
        cell::resume_at(*c, r);
        trap::set_extended_state(*c, reinterpret_cast<const void*>(u->fpu_state));
        trap::set_mask(c->signal_mask);
        cell::run_loop(*c);
    }
    const bool refused = stepped && (signal == cell::sig_segv || signal == cell::sig_bus);
    if (refused && u->vector == arch::vector_page_fault && !c->pass_to_linux &&
        trap::wants(u->fault_address)) {
        trap::offer_to_handlers(*c, *u);
    }
    if (refused && c->actions->of[signal].handler <= 1 && !c->pass_to_linux) {
        c->pass_to_linux = true;
        arch::general_registers r = registers_of(*u);
        r.rflags &= ~arch::rflags::trap;
        trap::set_mask(c->signal_mask);
        trap::step_in_host(*c, r);
        cell::resume_at(*c, r);
        cell::run_loop(*c);
    }
    c->pass_to_linux = false;
    if (stepped) u->rflags &= ~arch::rflags::trap;
    if (moved) u->stack = {0, cell::ss::disable, 0, 0};
    trap::run_handler(*c, signal, info, *u);
}
}
