// What a cell did: every crossing is counted.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <array>
#include <cstdint>
#include <string>

namespace xos {

/// Why a vCPU came back to host mode.
enum class exit_kind : unsigned {
    leave,        ///< leave()
    system_call,  ///< a forwarded system call
    trap,         ///< an exception that no handler in the guest settled
    poll,         ///< kernel-side code gave way to a pending signal
    host_call,    ///< host_call()
    kernel_call,  ///< kernel-side code needed Linux: a contended lock, other vCPUs to flush
    null,         ///< the benchmark's empty exit
    signal,       ///< KVM_RUN interrupted (-EINTR)
    refused,      ///< Linux refused an access to a mapping (-EFAULT)
    privileged,   ///< a privileged instruction of the application (HLT, unknown port)
    other,        ///< anything else
    count
};

/// How a system call was answered.
enum class syscall_path : unsigned {
    exit,      ///< forwarded to Linux by an exit, run on the calling thread
    emulated,  ///< by an exit, carried out by libxos (threads, signals, fork, ...)
    local,     ///< inside the guest, no exit
    module,    ///< forwarded to Linux by the kernel module, no exit to user space
    count
};

/// Totals of all threads since the cell started (in this process: a fork's child starts at zero).
struct statistics {
    static constexpr unsigned syscall_numbers = 512;

    std::uint64_t entries = 0;  ///< returns of enter(), and threads born inside
    std::uint64_t runs = 0;     ///< KVM_RUN calls
    std::array<std::uint64_t, static_cast<unsigned>(exit_kind::count)> exits{};
    std::array<std::array<std::uint64_t, syscall_numbers>,
               static_cast<unsigned>(syscall_path::count)>
        syscalls{};
    std::array<std::uint64_t, 32> exceptions{};  ///< by vector, taken in the guest
    std::uint64_t chunks = 0;        ///< pieces of 64 MiB of Linux's memory that the guest sees
    std::uint64_t hops = 0;          ///< times Linux resolved something in the guest's own state
    std::uint64_t signals = 0;       ///< handlers entered
    std::uint64_t vector_exits = 0;  ///< system_call exits that carried a vector of calls
    std::uint64_t vector_calls =
        0;                    ///< the calls that were made by those; `syscalls` has them, too
    std::uint64_t vcpus = 0;  ///< vCPUs created

    /// Why the kernel module left a call to user space.
    enum class punt : unsigned {
        call,     ///< one that it does not make
        watched,  ///< seccomp, ptrace, audit or tracing must see it
        signal,   ///< a signal was pending: its handler comes first
        gate,     ///< a signal was waiting for kernel-side code to give way
        frame,    ///< unreadable arguments
        vcpu,     ///< a vCPU that the module does not know
        look,     ///< one whose arguments libxos must look at
        count
    };
    std::array<std::uint64_t, static_cast<unsigned>(punt::count)> punts{};
    std::uint64_t vectors = 0;      ///< crossings into the module that made several calls
    std::uint64_t interrupted = 0;  ///< calls in the module that a signal interrupted
};

/// The totals now. Threads go on counting while the totals are read, so that numbers that belong
/// together may differ by a few. Call inside, which takes an exit, or outside.
[[nodiscard]] statistics stats();

/// The exits that the calling thread's vCPU has made so far, for differences around an operation; 0
/// outside. Call anywhere; makes no exit.
[[nodiscard]] std::uint64_t thread_exits() noexcept;

/// The report that `xos run --stats` prints. Call anywhere.
[[nodiscard]] std::string to_string(const statistics& s);

}  // namespace xos

#endif  // C++20
