// System calls answered inside the guest.
//
// A `syscall` instruction in a cell reaches libxos without an exit. A call that has no local answer
// is forwarded to Linux by the same thread. An application that knows an answer may give it itself:
//
//     [[gnu::target("general-regs-only")]]
//     static long answer_getpid(long, long, long, long, long, long) {
//         return cached_pid;   // a plain global variable
//     }
//     ...
//     xos::answer_locally(SYS_getpid, answer_getpid);
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

namespace xos {

/// Takes the call's six arguments and answers as the kernel does: -errno on failure.
///
/// It runs on a stack of 16 KiB of libxos's, in the middle of whatever the application was doing
/// and on any thread, so it obeys the rules of kernel-side code: no system calls, no libc, no
/// function of libxos, no thread-local variables, no faults, general registers only. Give it the
/// attribute [[gnu::target("general-regs-only")]]. In `ring3` it runs at CPL 0.
using local_call = long (*)(long, long, long, long, long, long);

/// From now on `number` is answered by `answer` on every thread inside; null gives the call back to
/// Linux, or to libxos, which answers a few calls inside itself (docs/syscalls.md). A forked child
/// goes on answering. Call on any thread, inside or outside, also before start().
/// @throws std::system_error bad_argument for a number above 511, or a call that libxos has to see
///         itself (clone, rt_sigreturn, exit, ...; docs/syscalls.md names them).
void answer_locally(unsigned number, local_call answer);

}  // namespace xos

#endif  // C++20
