// Linux's mappings in this process, as /proc/self/maps lists them.
#pragma once

#include <linux/fcntl.h>

#include <xos/types.hpp>

#include "libxos/base/raw_syscall.hpp"

namespace xos::memory {

struct linux_mapping {
    gva begin, end;
    bool executable;
};

/// Calls f(const linux_mapping&), in ascending order, until it returns false. Returns false if the
/// list cannot be read (no /proc, no descriptor left).
template <class F>
bool for_each_linux_mapping(F&& f) {
    const long fd =
        base::raw_syscall(__NR_open, base::as_long("/proc/self/maps"), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    linux_mapping mapping{};
    enum { in_begin, in_end, in_permissions, in_rest } part = in_begin;
    unsigned column = 0;
    char buffer[4096];
    long n;
    bool wanted = true;
    while (wanted &&
           (n = base::raw_syscall(__NR_read, fd, base::as_long(buffer), sizeof buffer)) > 0) {
        for (long i = 0; wanted && i < n; i++) {
            const char c = buffer[i];
            const auto digit = static_cast<std::uint64_t>(c <= '9' ? c - '0' : c - 'a' + 10);
            if (c == '\n') {
                wanted = f(static_cast<const linux_mapping&>(mapping));
                mapping = {};
                part = in_begin;
            } else if (part == in_begin) {
                if (c == '-')
                    part = in_end;
                else
                    mapping.begin = gva{mapping.begin.value << 4 | digit};
            } else if (part == in_end) {
                if (c == ' ')
                    part = in_permissions, column = 0;
                else
                    mapping.end = gva{mapping.end.value << 4 | digit};
            } else if (part == in_permissions) {
                if (++column == 3) {  // "rwxp"
                    mapping.executable = c == 'x';
                    part = in_rest;
                }
            }
        }
    }
    base::raw_syscall(__NR_close, fd);
    return n >= 0;
}

}  // namespace xos::memory
