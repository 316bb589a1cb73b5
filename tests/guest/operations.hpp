// For tests of operations that a batch or an io_queue carries out.
#pragma once

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <system_error>
#include <type_traits>
#include <utility>

namespace xos::test {

/// Two descriptors, closed at the end.
struct ends {
    ends() = default;
    ends(int a, int b) : fds{a, b} {}
    ends(const ends&) = delete;
    ~ends() {
        for (int fd : fds) ::close(fd);
    }
    void close(int which) { ::close(std::exchange(fds[which], -1)); }
    int out() const { return fds[0]; }
    int in() const { return fds[1]; }
    int fds[2]{-1, -1};
};

struct pipe_ends : ends {
    pipe_ends() { (void)!::pipe2(fds, O_CLOEXEC); }
};
struct sockets : ends {
    sockets() { (void)!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds); }
};

/// What the system call itself would have returned: the value, or minus the errno.
template <class Operation>
long shown(const Operation& o) {
    const auto r = o.result();
    if (!r) return -r.error().value();
    if constexpr (std::is_void_v<decltype(r.value())>)
        return 0;
    else
        return static_cast<long>(*r);
}

/// The message of the std::system_error that `body` throws, or "nothing".
template <class Body>
std::string refused(Body body) {
    try {
        body();
    } catch (const std::system_error& e) {
        return e.code().message();
    }
    return "nothing";
}

}  // namespace xos::test
