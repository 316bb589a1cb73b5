// Copies the application's memory and answers a bad pointer as Linux does.
#include <linux/fcntl.h>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using base::as_long;
using base::raw_syscall;
using cell::io_vector;

namespace {

/// Used where process_vm_readv is refused, for example by a container's seccomp filter: Linux
/// copies the bytes from one side into a pipe, and from there to the other side.
bool copy_by_pipe(std::uint64_t to, std::uint64_t from, std::size_t n) {
    constexpr std::size_t most = 4096;  // every pipe has room for this
    int ends[2];
    if (raw_syscall(__NR_pipe2, as_long(ends), O_CLOEXEC | O_NONBLOCK) != 0) return false;
    bool done = true;
    for (std::size_t at = 0; done && at < n;) {
        const std::size_t piece = n - at < most ? n - at : most;
        const auto wanted = static_cast<long>(piece);
        done = raw_syscall(__NR_write, ends[1], static_cast<long>(from + at), wanted) == wanted &&
               raw_syscall(__NR_read, ends[0], static_cast<long>(to + at), wanted) == wanted;
        at += piece;
    }
    for (int end : ends) raw_syscall(__NR_close, end);
    return done;
}

/// @return like process_vm_readv
long copy(long direction, std::uint64_t own, std::uint64_t theirs, std::size_t n) {
    const io_vector local{own, n}, remote{theirs, n};
    return raw_syscall(direction, raw_syscall(__NR_getpid), as_long(&local), 1, as_long(&remote), 1,
                       0);
}

/// Linux refuses a process its own memory only because of a bad address.
bool is_denied(long result) {
    return base::is_error(result) && result != -base::error::fault;
}

}  // namespace

bool copy_in(void* to, std::uint64_t from, std::size_t n) {
    const auto own = reinterpret_cast<std::uint64_t>(to);
    const long r = copy(__NR_process_vm_readv, own, from, n);
    return is_denied(r) ? copy_by_pipe(own, from, n) : r == static_cast<long>(n);
}

bool copy_out(std::uint64_t to, const void* from, std::size_t n) {
    const auto own = reinterpret_cast<std::uint64_t>(from);
    const long r = copy(__NR_process_vm_writev, own, to, n);
    return is_denied(r) ? copy_by_pipe(to, own, n) : r == static_cast<long>(n);
}

long copy_in_string(char* to, std::uint64_t from, std::size_t size) {
    for (std::size_t n = 0; n < size;) {
        std::size_t piece = page_size - (from + n) % page_size;
        if (piece > size - n) piece = size - n;
        if (!copy_in(to + n, from + n, piece)) return -1;
        for (const std::size_t end = n + piece; n < end; n++) {
            if (!to[n]) return static_cast<long>(n);
        }
    }
    return -1;
}

}  // namespace xos::syscall
