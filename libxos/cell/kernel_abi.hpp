// Structs as the kernel defines them, which libc's differ from (arch/x86/include/uapi/asm).
#pragma once

#include <cstddef>
#include <cstdint>

#include "libxos/arch/registers.hpp"

namespace xos::cell {

struct kernel_sigaction {
    std::uint64_t handler, flags, restorer, mask;
};

struct kernel_stack {
    std::uint64_t base;
    std::int32_t flags;
    std::int32_t padding;
    std::uint64_t size;
};

struct kernel_siginfo {
    std::int32_t number, error, code, padding;
    std::uint64_t rest[14];

    std::uint64_t address() const { return rest[0]; }
};
static_assert(sizeof(kernel_siginfo) == 128);

struct kernel_ucontext {
    std::uint64_t flags, link;
    kernel_stack stack;
    std::uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
    std::uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, rflags;
    std::uint16_t cs, gs, fs, ss;
    std::uint64_t error_code, vector, old_mask, fault_address;
    std::uint64_t fpu_state;
    std::uint64_t reserved[8];
    std::uint64_t mask;
};
static_assert(sizeof(kernel_ucontext) == 304);

struct io_vector {
    std::uint64_t base, length;
};

/// struct user_msghdr (Linux, include/linux/socket.h).
struct message_header {
    std::uint64_t name;
    std::uint32_t name_length, padding;
    std::uint64_t buffers, count, control, control_length;
    std::uint32_t flags, more_padding;
};
static_assert(sizeof(message_header) == 56);

struct clone_arguments {
    std::uint64_t flags = 0, pidfd = 0, child_tid = 0, parent_tid = 0, exit_signal = 0;
    std::uint64_t stack = 0, stack_size = 0, tls = 0, set_tid = 0, set_tid_size = 0, cgroup = 0;
};
static_assert(sizeof(clone_arguments) == 88);

/// The frame that rt_sigreturn reads; the stack pointer is at `context`.
struct hop_frame {
    std::uint64_t return_address;
    kernel_ucontext context;
    std::uint8_t below[128];
};

namespace sa {
inline constexpr std::uint64_t nocldstop = 1, nocldwait = 2, siginfo = 4, restorer = 0x04000000,
                               onstack = 0x08000000, restart = 0x10000000, nodefer = 0x40000000,
                               resethand = 0x80000000, expose_tag_bits = 0x800;
inline constexpr std::uint64_t known = nocldstop | nocldwait | siginfo | restorer | onstack |
                                       restart | nodefer | resethand | expose_tag_bits;
}  // namespace sa
namespace ss {
inline constexpr std::int32_t onstack = 1, disable = 2;
inline constexpr std::uint32_t autodisarm = 0x80000000;
}  // namespace ss
namespace uc {
inline constexpr std::uint64_t fp_xstate = 1, sigcontext_ss = 2, strict_restore_ss = 4;
}

inline constexpr int sig_quit = 3, sig_ill = 4, sig_trap = 5, sig_abort = 6, sig_bus = 7,
                     sig_fpe = 8, sig_kill = 9, sig_segv = 11, sig_stop = 19, sig_cpu_time = 24,
                     sig_file_size = 25, sig_sys = 31, signal_count = 64;
inline constexpr std::uint64_t bit_of(int signal) {
    return std::uint64_t{1} << (signal - 1);
}

/// The value of the timers of event loops (loops/timer_host.cpp), by which their signal is known.
inline constexpr std::uint64_t timer_value = 0x786f'735f'6c6f'6f70;
inline bool is_of_timer(int signal, const kernel_siginfo& info) {
    constexpr int by_timer = -2;  // SI_TIMER: thread, overrun, value
    return signal == sig_trap && info.code == by_timer && info.rest[1] == timer_value;
}

inline arch::general_registers registers_of(const kernel_ucontext& u) {
    return {u.r15, u.r14, u.r13, u.r12, u.r11, u.r10, u.r9,  u.r8,  u.rbp,
            u.rdi, u.rsi, u.rdx, u.rcx, u.rbx, u.rax, u.rip, u.rsp, u.rflags};
}

inline void put_registers(kernel_ucontext& u, const arch::general_registers& r) {
    u.r8 = r.r8, u.r9 = r.r9, u.r10 = r.r10, u.r11 = r.r11;
    u.r12 = r.r12, u.r13 = r.r13, u.r14 = r.r14, u.r15 = r.r15;
    u.rdi = r.rdi, u.rsi = r.rsi, u.rbp = r.rbp, u.rbx = r.rbx;
    u.rdx = r.rdx, u.rax = r.rax, u.rcx = r.rcx, u.rsp = r.rsp;
    u.rip = r.rip, u.rflags = r.rflags;
}

}  // namespace xos::cell
