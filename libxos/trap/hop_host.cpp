// Enters the guest's state in host mode; landing_host.cpp has the way back.
#include <asm/resource.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/trap/handlers.hpp"
#include "libxos/trap/hop.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::trap {

using base::as_long;
using base::raw_syscall;
using cell::bit_of;
using cell::context;
using cell::kernel_sigaction;
using cell::kernel_stack;
using cell::kernel_ucontext;
using cell::table_hold;
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
    return c.signals.pending ? c.signals.mask : old;
}

void apply_mask(context& c, std::uint64_t mask) {
    // Checking for a signal and opening the mask must be one step: a signal in between would be
    // recorded with the old mask, and the next one would come while it waits.
    const std::uint64_t call[7] = {__NR_rt_sigprocmask, 2, reinterpret_cast<std::uint64_t>(&mask),
                                   0, 8};
    if (xos_forward(&c, call) == cell::taken_back) c.signals.mask = mask;
}

namespace {

constexpr std::uint64_t all_signals = ~std::uint64_t{0};
constexpr std::uint64_t faults =
    bit_of(cell::sig_segv) | bit_of(cell::sig_bus) | bit_of(cell::sig_fpe) | bit_of(cell::sig_ill);

/// Gives the extended state the form that the kernel reads from a signal frame: struct
/// _fpx_sw_bytes at offset 464, a second magic number after the area
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

/// Whether the application has asked for faults' frames on its alternate stack. If not, a step may
/// use one of libxos's instead.
bool faults_on_alternate(const context& c) {
    std::uint64_t flags = 0;
    for (int signal : {cell::sig_segv, cell::sig_bus, cell::sig_fpe, cell::sig_ill})
        flags |= c.signals.actions->of[signal].flags;
    return (flags & cell::sa::onstack) != 0;
}

/// The frame of the SIGTRAP that ends a step must not lie on the application's stack, which may be
/// full or lack a guard page. The table is locked exclusively.
void end_step_on_alternate(context& c) {
    kernel_sigaction ours = cell::trampoline_for(c.signals.actions->of[cell::sig_trap]);
    ours.flags |= cell::sa::onstack;
    raw_syscall(__NR_rt_sigaction, cell::sig_trap, as_long(&ours), 0, 8);
}

/// A SIGTRAP that is the application's goes where the application wants it.
void deliver_trap_where_wanted(context& c) {
    const kernel_sigaction ours = cell::trampoline_for(c.signals.actions->of[cell::sig_trap]);
    raw_syscall(__NR_rt_sigaction, cell::sig_trap, as_long(&ours), 0, 8);
}

/// Expects the extended state in c.fpu and the final value in FS.
[[noreturn]] void launch(context& c, const arch::general_registers& r, std::uint64_t mask,
                         bool step) {
    c.statistics.hops++;
    make_frame_state(c);
    kernel_ucontext& u = c.frame.context;
    base::zero_bytes(&u, sizeof u);
    u.flags = cell::uc::fp_xstate | cell::uc::sigcontext_ss | cell::uc::strict_restore_ss;
    put_registers(u, r);
    u.rflags = (r.rflags & arch::rflags::user) | arch::rflags::fixed | arch::rflags::interrupt |
               (step ? arch::rflags::trap : 0);
    u.cs = 0x33;
    u.ss = 0x2b;
    u.fpu_state = reinterpret_cast<std::uint64_t>(c.fpu.bytes);
    u.mask = mask;
    u.stack = c.signals.alternate;
    if (step && !faults_on_alternate(c)) {
        u.stack = {reinterpret_cast<std::uint64_t>(c.step_stack), 0, 0, sizeof c.step_stack};
        c.hop.private_alternate = true;
    }
    c.hop.stepping = step;
    c.hop.in_flight = 1;
    c.native.blocks_calls = c.native.running;
    xos_sigreturn(&u);
}

/// Takes a SIGTRAP that the application has blocked out of the step's way, until the landing.
void hold_blocked_trap(context& c) {
    if (!(c.signals.mask & bit_of(cell::sig_trap))) return;
    const std::uint64_t wanted = bit_of(cell::sig_trap), at_once[2] = {0, 0};
    const bool taken =
        raw_syscall(__NR_rt_sigtimedwait, as_long(&wanted), as_long(&c.hop.held.info),
                    as_long(at_once), 8) == cell::sig_trap;
    c.hop.held.number = taken ? cell::sig_trap : 0;
}

[[noreturn]] void hop(context& c, const arch::general_registers& r, std::uint64_t mask, bool step) {
    // Its signal would be taken for the kernel's response.
    if (c.loop.timer_runs) the_cell.hooks.before_hop(c);
    if (step) hold_blocked_trap(c);
    c.cpu.read_xsave(c.fpu);
    // The instruction may use FS, which the application can change without a system call.
    arch::write_fs_base(c.cpu.read_special().fs.base);
    launch(c, r, mask, step);
}

}  // namespace

void alternate_off(context& c) {
    if ((c.signals.alternate.flags & cell::ss::disable) && !c.hop.private_alternate) return;
    c.hop.private_alternate = false;
    const kernel_stack off{0, cell::ss::disable, 0, 0};
    raw_syscall(__NR_sigaltstack, as_long(&off), 0);
}

void lock_table(context& c, table_hold how) {
    if (how == table_hold::exclusive)
        c.signals.actions->lock.lock();
    else
        c.signals.actions->lock.lock_shared();
    c.hop.table_lock = how;
}

void unlock_table(context& c) {
    const auto how = c.hop.table_lock;
    c.hop.table_lock = table_hold::nothing;
    if (how == table_hold::exclusive) c.signals.actions->lock.unlock();
    if (how == table_hold::shared) c.signals.actions->lock.unlock_shared();
}

void continue_natively(context& c, const arch::general_registers& r) {
    launch(c, r, c.signals.mask & ~bit_of(cell::sig_sys), false);
}

void leave_natively(context& c, const arch::general_registers& r) {
    launch(c, r, c.signals.mask, false);
}

void return_natively(context& c, kernel_ucontext& frame) {
    frame.mask = c.signals.mask & ~bit_of(cell::sig_sys);
    frame.stack = c.signals.alternate;
    c.hop.in_flight = 1;
    c.native.blocks_calls = 1;
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
    if (!c.hop.concealed.page) return;
    the_cell.hooks.reveal(c.hop.concealed);
    c.hop.concealed = {};
}

void step_in_host(context& c, const arch::general_registers& r) {
    const std::uint64_t mask = block_signals(c);
    if (c.signals.pending) return;
    c.signals.mask = mask;
    // In-guest handlers hear of a refusal only through a handler in the kernel. But a process that
    // the default action will end must end where the guest is, for its core dump.
    const bool handlers_first = !c.hop.pass_to_linux && (any_page_fault_handler() || c.hop.probed);
    lock_table(c, table_hold::exclusive);
    end_step_on_alternate(c);
    for (int signal : {cell::sig_segv, cell::sig_bus}) {
        if (c.signals.actions->of[signal].handler > 1) continue;
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
    if (c.signals.pending) return;
    c.signals.mask = mask;
    lock_table(c, table_hold::exclusive);
    end_step_on_alternate(c);
    unlock_table(c);
    hop(c, r, all_signals & ~(bit_of(signal) | bit_of(cell::sig_trap)), true);
}

void break_in_host(context& c, const arch::general_registers& r) {
    c.hop.probed = r.rip;
    step_in_host(c, r);
    c.hop.probed = 0;
}

void show_memory_for_core() {
    std::uint64_t limit[2] = {};
    raw_syscall(__NR_prlimit64, 0, RLIMIT_CORE, 0, as_long(limit));
    if (limit[0] != 0) the_cell.hooks.show_memory();
}

void end_by(context& c, const cell::queued_signal& s) {
    set_default_action(s.number);
    show_memory_for_core();
    set_mask(0);
    raw_syscall(__NR_rt_tgsigqueueinfo, raw_syscall(__NR_getpid), c.thread.id, s.number,
                as_long(&s.info));
    cell::die(&c, "a fatal signal did not end the process", static_cast<unsigned>(s.number));
}

void deliver(context& c, const arch::general_registers& r, const cell::queued_signal& s) {
    lock_table(c, table_hold::shared);
    if (c.signals.actions->of[s.number].flags & cell::sa::resethand || s.number == cell::sig_trap) {
        // The handler runs once, even if another thread has the same signal to deliver.
        unlock_table(c);
        lock_table(c, table_hold::exclusive);
    }
    if (c.signals.actions->of[s.number].handler <= 1) return unlock_table(c);
    if (s.number == cell::sig_trap) deliver_trap_where_wanted(c);
    const long queued = raw_syscall(__NR_rt_tgsigqueueinfo, raw_syscall(__NR_getpid), c.thread.id,
                                    s.number, as_long(&s.info));
    if (queued < 0)
        cell::die(&c, "a signal could not be queued again", static_cast<unsigned>(-queued));
    // If Linux cannot write the frame it raises SIGSEGV, or ends the process if SIGSEGV is blocked
    // or has no handler.
    std::uint64_t open = bit_of(s.number);
    if (c.signals.actions->of[cell::sig_segv].handler > 1)
        open |= bit_of(cell::sig_segv) & ~c.signals.mask;
    c.hop.delivering = s.number;
    refuse_frame_as_the_guest(c, r.rsp, s.number);
    hop(c, r, all_signals & ~open, false);
}

bool return_from_handler(context& c, const kernel_ucontext& u, const void* fpu_state) {
    if (!set_extended_state(c, fpu_state)) return false;
    arch::general_registers r = registers_of(u);
    r.rflags = (r.rflags & arch::rflags::user) | arch::rflags::fixed | arch::rflags::interrupt;
    cell::resume_at(c, r);
    c.signals.alternate = u.stack;
    if (u.stack.flags & cell::ss::disable) c.signals.alternate = {0, cell::ss::disable, 0, 0};
    c.signals.alternate.flags &= ~cell::ss::onstack;
    apply_mask(c, u.mask);
    return true;
}

}  // namespace xos::trap
