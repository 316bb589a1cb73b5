// System calls answered inside the guest.
//
// A `syscall` instruction in a cell reaches libxos without an exit. What has no local answer is
// forwarded to Linux by the same thread; an application that knows better may answer a call itself:
//
//     xos::answer_locally(SYS_getpid, [](long, long, long, long, long, long) { return cached_pid;
//     });
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

namespace xos {

/// The answer, as the kernel gives it: -errno on failure. It runs on a small stack of libxos's, in
/// the middle of whatever the application was doing, so it obeys the rules of kernel-side code: no
/// system calls, no libc, no thread-local variables, general registers only. In `ring3` it runs at
/// CPL 0. Make it [[gnu::target("general-regs-only")]].
using local_call = long (*)(long, long, long, long, long, long);

/// From now on `number` is answered by `answer` on every thread of the cell; null gives the call
/// back to Linux. Any thread, inside or outside.
/// @throws std::system_error EINVAL for a number above 511, or a call that libxos has to see itself
///         (clone, rt_sigreturn, exit, ...).
void answer_locally(unsigned number, local_call answer);

}  // namespace xos

#endif  // C++20
