// One thread's share of the server: an epoll set and the connections in it.
//
// The set is also how a connection changes hands: adopt() only adds the socket to it, and the
// worker meets a descriptor it doesn't know. So nothing but the kernel's queue is shared between
// workers.
#pragma once

#include <sys/epoll.h>

#include <atomic>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "connection.hpp"
#include "service.hpp"
#include "unique_fd.hpp"

namespace kvd {

/// The time now, in the store's resolution.
time_point read_clock() noexcept;

class worker {
  public:
    explicit worker(service& host);

    /// Calls `ready()` whenever `fd` is readable. Before run(), or from the worker's own thread.
    void watch(int fd, std::function<void()> ready);
    void ignore(int fd);

    /// Calls `tick(now)` from run(); the answer is how long to wait until the next time.
    void every(std::function<milliseconds(time_point)> tick) { tick_ = std::move(tick); }

    /// Takes over a connected non-blocking socket; closes it when Linux has no room. Any thread.
    void adopt(unique_fd socket);

    /// Serves until stop(), then answers what was received already and closes every connection.
    void run();

    /// Any thread.
    void stop() noexcept;

  private:
    struct client {
        std::unique_ptr<connection> talk;
        waiting_for registered;
    };
    using client_map = std::unordered_map<int, client>;
    struct watched {
        int fd;
        std::function<void()> ready;
    };

    static constexpr milliseconds drain_limit{2000};

    int wait(milliseconds limit);
    void dispatch(int fd, std::uint32_t happened, time_point now);
    void serve(client_map::iterator at, std::uint32_t happened, time_point now);
    void settle(client_map::iterator at, waiting_for next);
    void drain();

    service& host_;
    unique_fd epoll_;
    unique_fd wake_;
    std::atomic<bool> stopping_{false};
    std::vector<watched> watched_;
    client_map clients_;
    std::function<milliseconds(time_point)> tick_;
    std::vector<epoll_event> events_;
};

}  // namespace kvd
