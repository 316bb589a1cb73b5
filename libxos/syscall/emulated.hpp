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

// signal_calls_host.cpp
long rt_sigaction(cell::context& c, const std::uint64_t* a);
long rt_sigreturn(cell::context& c, const std::uint64_t* a);
long sigaltstack(cell::context& c, const std::uint64_t* a);
// process_calls_host.cpp
long fork(cell::context& c, const std::uint64_t* a);
long vfork(cell::context& c, const std::uint64_t* a);
long clone(cell::context& c, const std::uint64_t* a);
long clone3(cell::context& c, const std::uint64_t* a);
long exit(cell::context& c, const std::uint64_t* a);
long exit_group(cell::context& c, const std::uint64_t* a);
long arch_prctl(cell::context& c, const std::uint64_t* a);
// exec_calls_host.cpp
long execve(cell::context& c, const std::uint64_t* a);
long execveat(cell::context& c, const std::uint64_t* a);
// own_program_host.cpp
long readlink(cell::context& c, const std::uint64_t* a);
long readlinkat(cell::context& c, const std::uint64_t* a);
// descriptor_calls_host.cpp
long close(cell::context& c, const std::uint64_t* a);
long dup2(cell::context& c, const std::uint64_t* a);
long dup3(cell::context& c, const std::uint64_t* a);
long close_range(cell::context& c, const std::uint64_t* a);

/// Made by this thread for the application, after libxos has changed an argument.
long forward(cell::context& c, std::uint64_t number, const std::uint64_t* a);

/// The application's memory, with Linux's answer to a bad pointer: false is -EFAULT.
bool copy_in(void* to, std::uint64_t from, std::size_t n);
bool copy_out(std::uint64_t to, const void* from, std::size_t n);
/// A string with its end, which must be within `size` bytes. Returns its length, or -1.
long copy_in_string(char* to, std::uint64_t from, std::size_t size);

/// Whether an absolute path is /proc/self/exe by one of its names, and Linux would lead elsewhere.
bool names_own_program(const char* path);

inline constexpr long error_perm = -1, error_badf = -9, error_again = -11, error_nomem = -12,
                      error_fault = -14, error_inval = -22, error_nosys = -38;

}  // namespace xos::syscall
