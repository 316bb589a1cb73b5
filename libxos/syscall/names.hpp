// Linux's names for errors and signals, for code without libc.
#pragma once

namespace xos::syscall {

/// "ENOENT" for 2; null for a number that has no name.
const char* error_name(unsigned number) noexcept;

/// "SIGTERM" for 15; null for a number that is no standard signal.
const char* signal_name(unsigned number) noexcept;

}  // namespace xos::syscall
