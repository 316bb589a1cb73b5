// A log of the system calls of a process, a line each, much as strace(1) writes it:
//
//     4711 openat(AT_FDCWD, "/etc/passwd", 0x80000, 00) = 3 <exit 41.3us>
//
// These are the thread, the call with its arguments, its result, how it was carried out and how
// long that took. A line is written when its call ends; a call that a signal takes back has not
// ended. A call that does not return (exit, exec) is logged beforehand, with `?` as its result.
//
// Calls answered inside the guest leave the guest to be logged; their times do not include that
// exit. The kernel module answers calls without leaving the guest, so a traced cell must not use
// it.
#pragma once

#include "kmod/xos_uapi.h"
#include "libxos/cell/cell.hpp"

namespace xos::syscall {

/// Call it before any thread enters. `fd` is one of libxos's own descriptors.
void start_trace(int fd);

inline bool tracing() {
    return cell::the_cell.trace.fd >= 0;
}

/// Makes the call in the thread's area, by `make`, and logs it.
void trace_call(cell::context& c, void (*make)(cell::context&));

/// Makes one call of a vector (its number and six arguments) by `make`, logs it, and returns its
/// result. The vector itself is not logged.
long trace_one_of_vector(cell::context& c, const std::uint64_t* call,
                         long (*make)(cell::context&, const std::uint64_t*));

/// A call that was answered in the guest.
struct local_record {
    std::uint64_t number, arguments[6];
    long result;
    std::uint64_t began, ended;  ///< in cycles
};
/// In host mode.
void trace_local(const local_record& call);

}  // namespace xos::syscall
