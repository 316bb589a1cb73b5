// Writes to libxos's own logs. The application sees neither a signal nor an error when a write
// fails.
#pragma once

#include <linux/poll.h>

#include <cstddef>
#include <cstdint>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"

namespace xos::base {

namespace log_detail {

inline constexpr unsigned sig_pipe = 13, sig_file_size = 25;
inline constexpr long set_mask = 2;

/// Takes a signal that is pending for this thread.
inline void swallow(unsigned signal) {
    const std::uint64_t set = std::uint64_t{1} << (signal - 1), no_time[2] = {};
    raw_syscall(__NR_rt_sigtimedwait, as_long(&set), 0, as_long(no_time), sizeof set);
}

}  // namespace log_detail

/// Makes one write(2), so that a line stays whole. False: nobody reads the log any more.
inline bool log_write(int fd, const char* text, std::size_t n) {
    using namespace log_detail;
    const std::uint64_t all = ~std::uint64_t{0};
    std::uint64_t mask = 0;
    raw_syscall(__NR_rt_sigprocmask, set_mask, as_long(&all), as_long(&mask), sizeof mask);
    long r;
    do {
        r = raw_syscall(__NR_write, fd, as_long(text), static_cast<long>(n));
        if (r == -error::again) {
            pollfd wait{fd, POLLOUT, 0};
            raw_syscall(__NR_poll, as_long(&wait), 1, -1);
        }
    } while (r == -error::again || r == -error::intr);
    if (r == -error::fbig) swallow(sig_file_size);
    if (r == -error::pipe) swallow(sig_pipe);
    raw_syscall(__NR_rt_sigprocmask, set_mask, as_long(&mask), 0, sizeof mask);
    return r != -error::pipe;
}

}  // namespace xos::base
