// A log of the system calls of a process, a line each, much as strace(1) writes it:
//
//     4711 openat(AT_FDCWD, "/etc/passwd", 0x80000, 00) = 3 <exit 41.3us>
//
// that is the thread, the call with its arguments, its result, the way it took and how long that
// was. A line is written when its call ends; one that a signal takes back has not ended. What does
// not return (exit, exec) is logged before, with `?` for a result.
//
// Calls answered inside the guest are logged from there, by an exit of their own that their time
// does not count. The kernel module answers calls where nobody sees them: a traced cell is to have
// none.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::syscall {

/// Before anybody enters. `fd` is one of libxos's own descriptors.
void start_trace(int fd);

inline bool tracing() {
    return cell::the_cell.trace.fd >= 0;
}

/// Makes the call that lies in the thread's area, by `make`, and logs it.
void trace_call(cell::context& c, void (*make)(cell::context&));

/// A call that was answered in the guest.
struct local_record {
    std::uint64_t number, arguments[6];
    long result;
    std::uint64_t began, ended;  ///< in cycles
};
/// In host mode.
void trace_local(const local_record& call);

}  // namespace xos::syscall
