// System calls that libxos carries out itself, because they touch what it owns.
//
// Each runs in host mode on the loop stack and returns what the application should see in RAX. One
// that sends the guest elsewhere (rt_sigreturn, a fork's child) has called resume_at(); its value
// is not used.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::syscall {

using emulation = long (*)(cell::context& c, const std::uint64_t* arguments);

/// Null for a call that is forwarded.
emulation emulation_of(std::uint64_t number);

/// The run loop's hooks.
void on_system_call(cell::context& c);
void on_interrupted(cell::context& c);

/// Sets the bit of every call that is forwarded.
void list_forwarded(std::uint64_t* bits);

// refused_host.cpp
long refused(cell::context& c, const std::uint64_t* a);
/// Tells, once for each number, that `call` fails and why.
void report_refusal(unsigned number, const char* call, const char* why);
/// Tells, once, that there is no vCPU for another thread.
void report_thread_refusal(base::outcome failure);
// signal_calls_host.cpp
long rt_sigaction(cell::context& c, const std::uint64_t* a);
long rt_sigreturn(cell::context& c, const std::uint64_t* a);
long sigaltstack(cell::context& c, const std::uint64_t* a);
long kill(cell::context& c, const std::uint64_t* a);
long tkill(cell::context& c, const std::uint64_t* a);
long tgkill(cell::context& c, const std::uint64_t* a);
/// Whether that is a signal's default action, as far as libxos leaves it to Linux: SIGTRAP is its
/// own.
bool dumps_core(std::uint64_t signal);
// process_calls_host.cpp
long fork(cell::context& c, const std::uint64_t* a);
long vfork(cell::context& c, const std::uint64_t* a);
long clone(cell::context& c, const std::uint64_t* a);
long clone3(cell::context& c, const std::uint64_t* a);
long exit(cell::context& c, const std::uint64_t* a);
long exit_group(cell::context& c, const std::uint64_t* a);
long arch_prctl(cell::context& c, const std::uint64_t* a);
long rseq(cell::context& c, const std::uint64_t* a);
// exec_calls_host.cpp
long execve(cell::context& c, const std::uint64_t* a);
long execveat(cell::context& c, const std::uint64_t* a);
/// Whether there is something to execute, so that an exec may well not return.
bool exec_is_likely(std::uint64_t number, const std::uint64_t* a);
// tracer_host.cpp
/// Whether a process that is in a cell itself traces this thread.
bool is_traced_from_a_cell();
// own_program_host.cpp
long readlink(cell::context& c, const std::uint64_t* a);
long readlinkat(cell::context& c, const std::uint64_t* a);
// vm/memory_calls_host.cpp
long mmap(cell::context& c, const std::uint64_t* a);
long munmap(cell::context& c, const std::uint64_t* a);
long mprotect(cell::context& c, const std::uint64_t* a);
long pkey_mprotect(cell::context& c, const std::uint64_t* a);
long mremap(cell::context& c, const std::uint64_t* a);
long shmat(cell::context& c, const std::uint64_t* a);
long madvise(cell::context& c, const std::uint64_t* a);
long mlock(cell::context& c, const std::uint64_t* a);
long mlock2(cell::context& c, const std::uint64_t* a);
long mlockall(cell::context& c, const std::uint64_t* a);
long mbind(cell::context& c, const std::uint64_t* a);
long set_mempolicy_home_node(cell::context& c, const std::uint64_t* a);
long mseal(cell::context& c, const std::uint64_t* a);
/// PR_SET_VMA
long name_memory(cell::context& c, const std::uint64_t* a);
// vm/lending_calls_host.cpp
long vmsplice(cell::context& c, const std::uint64_t* a);
long io_uring_setup(cell::context& c, const std::uint64_t* a);
long io_uring_enter(cell::context& c, const std::uint64_t* a);
long io_uring_register(cell::context& c, const std::uint64_t* a);
long io_setup(cell::context& c, const std::uint64_t* a);
long setsockopt(cell::context& c, const std::uint64_t* a);
long userfaultfd(cell::context& c, const std::uint64_t* a);
long ioctl(cell::context& c, const std::uint64_t* a);
long process_madvise(cell::context& c, const std::uint64_t* a);
// limit_calls_host.cpp
long getrlimit(cell::context& c, const std::uint64_t* a);
long setrlimit(cell::context& c, const std::uint64_t* a);
long prlimit64(cell::context& c, const std::uint64_t* a);
// seccomp_calls_host.cpp
long seccomp(cell::context& c, const std::uint64_t* a);
long prctl(cell::context& c, const std::uint64_t* a);
// descriptor_calls_host.cpp
long close(cell::context& c, const std::uint64_t* a);
long dup2(cell::context& c, const std::uint64_t* a);
long dup3(cell::context& c, const std::uint64_t* a);
long close_range(cell::context& c, const std::uint64_t* a);
long getdents(cell::context& c, const std::uint64_t* a);
long getdents64(cell::context& c, const std::uint64_t* a);

// probe_calls_host.cpp
long probe_return(cell::context& c, const std::uint64_t* a);
long perf_event_open(cell::context& c, const std::uint64_t* a);

// native_child_host.cpp: a forked child before it has a VM.
/// Comes back only if Linux lacks what it needs. FS is the application's.
void start_natively(cell::context& c);
void landed_natively(cell::context& c, int signal, cell::kernel_siginfo* info,
                     cell::kernel_ucontext& frame);
/// The kernel's entry for SIGSYS: ours, by which Linux tells of calls; or as the application wants
/// it.
void take_sys_action();
void restore_sys_action(const cell::context& c);
// process_calls_host.cpp
std::uint64_t guest_fs(cell::context& c);
/// For a call that the application does not simply return from: stops signals, `mask` being the one
/// before, and notes the application behind its call in c.saved and c.fpu. False: a signal waits,
/// and the call is taken back.
bool hold_application(cell::context& c, std::uint64_t& mask);
/// After a fork, in the child.
void make_machine_of_child(cell::context& c);

/// Made by this thread for the application, after libxos has changed an argument.
long forward(cell::context& c, std::uint64_t number, const std::uint64_t* a);

// copy_host.cpp
/// The application's memory, with Linux's answer to a bad pointer: false is -EFAULT.
bool copy_in(void* to, std::uint64_t from, std::size_t n);
bool copy_out(std::uint64_t to, const void* from, std::size_t n);
/// A string with its end, which must be within `size` bytes. Returns its length, or -1.
long copy_in_string(char* to, std::uint64_t from, std::size_t size);

/// Whether an absolute path is /proc/self/exe by one of its names, and Linux would lead elsewhere.
bool names_own_program(const char* path);

/// Newer than the headers of Debian 12.
inline constexpr unsigned number_of_mseal = 462;

inline constexpr long error_perm = -1, error_2big = -7, error_badf = -9, error_again = -11,
                      error_nomem = -12, error_fault = -14, error_inval = -22, error_nodev = -19,
                      error_nospc = -28,
                      error_nosys = -38, error_opnotsupp = -95;

}  // namespace xos::syscall
