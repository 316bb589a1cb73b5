// System calls that libxos carries out itself, because they touch what it owns.
//
// Each runs in host mode on the loop stack and returns what the application should see in RAX. A
// call that sends the guest elsewhere (rt_sigreturn, a fork's child) has called resume_at(), and
// its return value is not used.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::syscall {

using emulation = long (*)(cell::context& c, const std::uint64_t* arguments);

/// Null for a call that is forwarded.
emulation emulation_of(std::uint64_t number);

/// A hook of the run loop.
void on_system_call(cell::context& c);
/// The same for a call that `make` carries out, by make_call() in the end.
void take_call(cell::context& c, void (*make)(cell::context&));
void make_call(cell::context& c);

// refused_host.cpp
long refused(cell::context& c, const std::uint64_t* a);
/// Reports, once for each number, that `call` fails and why.
void report_refusal(unsigned number, const char* call, const char* why);
/// Reports, once, that there is no vCPU for another thread.
void report_thread_refusal(base::outcome failure);
// signal_calls_host.cpp
long rt_sigaction(cell::context& c, const std::uint64_t* a);
long rt_sigreturn(cell::context& c, const std::uint64_t* a);
long sigaltstack(cell::context& c, const std::uint64_t* a);
long kill(cell::context& c, const std::uint64_t* a);
long tkill(cell::context& c, const std::uint64_t* a);
long tgkill(cell::context& c, const std::uint64_t* a);
/// Whether the signal's default action dumps core. False for SIGTRAP, which libxos does not leave
/// to Linux.
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
/// Whether there is a file to execute, so that an exec may well not return.
bool exec_is_likely(std::uint64_t number, const std::uint64_t* a);
// tracer_host.cpp
/// Whether a process that is in a cell itself traces this thread.
bool is_traced_from_a_cell();
// own_program_host.cpp
long readlink(cell::context& c, const std::uint64_t* a);
long readlinkat(cell::context& c, const std::uint64_t* a);
// vm/process/memory_calls_host.cpp
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
// vm/process/lending_calls_host.cpp
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

// identity_calls_host.cpp
long getpid(cell::context& c, const std::uint64_t* a);
long gettid(cell::context& c, const std::uint64_t* a);
long getuid(cell::context& c, const std::uint64_t* a);
long geteuid(cell::context& c, const std::uint64_t* a);
long getgid(cell::context& c, const std::uint64_t* a);
long getegid(cell::context& c, const std::uint64_t* a);
long setuid(cell::context& c, const std::uint64_t* a);
long setgid(cell::context& c, const std::uint64_t* a);
long setreuid(cell::context& c, const std::uint64_t* a);
long setregid(cell::context& c, const std::uint64_t* a);
long setresuid(cell::context& c, const std::uint64_t* a);
long setresgid(cell::context& c, const std::uint64_t* a);
long setns(cell::context& c, const std::uint64_t* a);
long unshare(cell::context& c, const std::uint64_t* a);
// probe_calls_host.cpp
long probe_return(cell::context& c, const std::uint64_t* a);
long perf_event_open(cell::context& c, const std::uint64_t* a);

// native_child_host.cpp: a forked child before it has a VM.
/// Returns only if Linux lacks something that it needs. FS is the application's.
void start_natively(cell::context& c);
void landed_natively(cell::context& c, int signal, cell::kernel_siginfo* info,
                     cell::kernel_ucontext& frame);
/// Sets the kernel's action for SIGSYS: libxos's own, by which Linux reports calls, or the
/// application's.
void take_sys_action();
void restore_sys_action(const cell::context& c);
// process_calls_host.cpp
std::uint64_t guest_fs(cell::context& c);
/// For a call that does not simply return to the application: blocks signals, stores the mask
/// before that in `mask`, and records the application's state after its call in c.saved and c.fpu.
/// False: a signal waits, and the call is taken back.
bool hold_application(cell::context& c, std::uint64_t& mask);
/// Called in the child after a fork.
void make_machine_of_child(cell::context& c);

/// Makes a call of the application on this thread, after libxos has changed an argument.
long forward(cell::context& c, std::uint64_t number, const std::uint64_t* a);

// copy_host.cpp
/// Copies the application's memory. False on a bad pointer, for which Linux answers -EFAULT.
bool copy_in(void* to, std::uint64_t from, std::size_t n);
bool copy_out(std::uint64_t to, const void* from, std::size_t n);
/// Copies a string with its terminator, which must be within `size` bytes. Returns its length, or
/// -1.
long copy_in_string(char* to, std::uint64_t from, std::size_t size);

/// Whether an absolute path names /proc/self/exe, and Linux would resolve it to another program.
bool names_own_program(const char* path);

/// Newer than the headers of Debian 12.
inline constexpr unsigned number_of_mseal = 462;

}  // namespace xos::syscall
