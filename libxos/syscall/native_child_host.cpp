// A forked child runs natively until it has lived for a while: most children exec at once, and a VM
// would cost more than everything they do.
//
// The child continues by a hop, and Linux's syscall user dispatch (Linux 5.11) brings each of its
// system calls back here as a SIGSYS. The calls are carried out on the loop stack as usual. The
// child gets its VM when it makes a call that needs one, gets a signal that it handles, has made
// many calls, or has lived a millisecond.
#include <linux/prctl.h>
#include <linux/ptrace.h>

#include "libxos/arch/cpu.hpp"
#include "libxos/base/clock.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/syscall/table.hpp"
#include "libxos/trap/signals.hpp"

extern "C" {
extern const char xos_sigreturn_end[];
}

namespace xos::syscall {

using base::as_long;
using base::monotonic_nanoseconds;
using base::raw_syscall;
using cell::context;
using cell::kernel_sigaction;
using cell::kernel_siginfo;
using cell::kernel_ucontext;
using cell::position;
using cell::the_cell;

namespace {

constexpr unsigned most_calls = 64;
constexpr std::uint64_t longest_nanoseconds = 1'000'000;

// <linux/prctl.h> defines them since Linux 5.11.
constexpr long set_syscall_user_dispatch = 59, dispatch_off = 0, dispatch_on = 1;

/// Whether a call can be carried out without a vCPU.
bool works_without_vcpu(std::uint64_t number, const kernel_ucontext& u) {
    if (number >= table_size) return false;
    const local_call inside = xos_local_calls[number];
    if (inside && !(belongs_to(served::identity, static_cast<unsigned>(number)) &&
                    inside == answer_of_own(static_cast<unsigned>(number))))
        return false;
    switch (number) {
        case __NR_rt_sigaction:
            return u.rdi != cell::sig_sys;
        case __NR_execve:
        case __NR_execveat:
        case __NR_exit:
        case __NR_exit_group:
        case __NR_close:
        case __NR_close_range:
        case __NR_dup2:
        case __NR_dup3:
        case __NR_getdents:
        case __NR_getdents64:
        case __NR_readlink:
        case __NR_readlinkat:
        case __NR_rseq:
        case __NR_ioctl:
        case __NR_setsockopt:
        case __NR_mlock:
        case __NR_mlock2:
        case __NR_mlockall:
        case __NR_mbind:
        case __NR_vmsplice:
        case __NR_io_setup:
        case __NR_process_madvise:
        case __NR_getrlimit:
        case __NR_setrlimit:
        case __NR_prlimit64:
        case __NR_getpid:
        case __NR_gettid:
        case __NR_getuid:
        case __NR_geteuid:
        case __NR_getgid:
        case __NR_getegid:
        case __NR_setuid:
        case __NR_setgid:
        case __NR_setreuid:
        case __NR_setregid:
        case __NR_setresuid:
        case __NR_setresgid:
        case __NR_setns:
        case __NR_unshare:
            return true;
        case __NR_kill:
        case __NR_tkill:
            return !dumps_core(u.rsi);
        case __NR_tgkill:
            return !dumps_core(u.rdx);
        case __NR_ptrace:
            return u.rdi != PTRACE_TRACEME;  // the tracer would see each SIGSYS
        case __NR_prctl:
            return u.rdi != set_syscall_user_dispatch && u.rdi != PR_SET_SECCOMP;
        default:
            return emulation_of(number) == nullptr;
    }
}

bool stays_native(context& c, const kernel_ucontext& u) {
    return works_without_vcpu(u.rax, u) && ++c.native.calls <= most_calls &&
           monotonic_nanoseconds() < c.native.until;
}

/// Whether the child can continue natively after the call. If not, a signal is waiting, and `u` is
/// where the guest must continue.
bool make_call(context& c, kernel_ucontext& u) {
    arch::guest_area& area = *c.kernel_area;
    area.number = u.rax;
    const std::uint64_t arguments[6] = {u.rdi, u.rsi, u.rdx, u.r10, u.r8, u.r9};
    for (unsigned i = 0; i < 6; i++) area.arguments[i] = arguments[i];
    c.stop.where = position::system_call;
    trap::set_mask(c.signals.mask);
    the_cell.hooks.system_call(c);
    c.signals.mask = trap::block_signals(c);
    if (c.stop.where == position::taken_back)
        u.rip -= 2;  // the length of SYSCALL
    else
        u.rax = area.result;
    return !c.signals.pending && c.stop.where != position::taken_back;
}

/// The guest's tables may explain a page fault: the access is tried again in the guest.
bool is_page_fault(int signal, const kernel_siginfo& info) {
    return (signal == cell::sig_segv || signal == cell::sig_bus) && info.code > 0;
}

}  // namespace

void take_sys_action() {
    const kernel_sigaction ours = cell::trampoline_for({0, 0, 0, 0});
    raw_syscall(__NR_rt_sigaction, cell::sig_sys, as_long(&ours), 0, 8);
}

void restore_sys_action(const context& c) {
    const kernel_sigaction& wanted = c.signals.actions->of[cell::sig_sys];
    const kernel_sigaction present = wanted.handler > 1 ? cell::trampoline_for(wanted) : wanted;
    raw_syscall(__NR_rt_sigaction, cell::sig_sys, as_long(&present), 0, 8);
}

void start_natively(context& c) {
    const auto begin = as_long(&xos_sigreturn), end = as_long(xos_sigreturn_end);
    c.native.blocks_calls = 0;
    if (raw_syscall(__NR_prctl, set_syscall_user_dispatch, dispatch_on, begin, end - begin,
                    as_long(&c.native.blocks_calls)) != 0)
        return;
    take_sys_action();
    c.native = {.running = true, .until = monotonic_nanoseconds() + longest_nanoseconds};
    trap::continue_natively(c, c.saved);
}

void landed_natively(context& c, int signal, kernel_siginfo* info, kernel_ucontext& u) {
    constexpr int user_dispatch = 2;
    const bool is_call = signal == cell::sig_sys && info->code == user_dispatch;
    // The call came by SYSCALL and not by INT 80, whose numbers differ.
    constexpr std::uint64_t x86_64 = 0xc000003e;
    if (is_call && info->rest[1] >> 32 == x86_64 && stays_native(c, u)) {
        if (make_call(c, u)) trap::return_natively(c, u);
    } else if (is_call) {
        u.rip -= 2;  // the guest makes the call again
    }
    raw_syscall(__NR_prctl, set_syscall_user_dispatch, dispatch_off, 0, 0, 0);
    restore_sys_action(c);
    c.native = {};
    make_machine_of_child(c);
    c.cpu.write_fs(arch::read_fs_base());
    arch::general_registers r = cell::registers_of(u);
    r.rflags = (r.rflags & arch::rflags::user) | arch::rflags::fixed | arch::rflags::interrupt;
    cell::resume_at(c, r);
    trap::set_extended_state(c, reinterpret_cast<const void*>(u.fpu_state));
    if (!is_call && !is_page_fault(signal, *info)) trap::run_handler(c, signal, info, u);
    if (!c.signals.pending) trap::set_mask(c.signals.mask);
    cell::run_loop(c);
}

}  // namespace xos::syscall
