// The listening socket, the workers and their threads.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "service.hpp"
#include "unique_fd.hpp"
#include "worker.hpp"

namespace kvd {

struct server_options {
    std::string address = "127.0.0.1";  ///< numeric, IPv4 or IPv6
    std::uint16_t port = 0;             ///< 0: the kernel chooses
    unsigned threads = 1;
    io way = io::epoll;
    std::string engine;  ///< what INFO says
    std::string mode;
    std::function<crossings()> count_crossings;
};

/// Blocks SIGTERM and SIGINT in this thread and those it creates: server reads them from a
/// signalfd. Call before the first thread is created.
void block_termination_signals();

class server {
  public:
    /// Listens. Clients can connect from here on and are served once run() runs.
    /// @throws std::system_error or std::invalid_argument that says what failed.
    explicit server(const server_options& options);

    std::uint16_t port() const noexcept { return service_.self.port; }

    /// Serves with the calling thread and `threads - 1` others, until SIGTERM, SIGINT or stop().
    void run();

    /// Any thread.
    void stop() noexcept;

  private:
    void accept_some();
    void pause_accepting();
    milliseconds tick(time_point now);

    service service_;
    unique_fd listener_;
    unique_fd signals_;
    std::vector<std::unique_ptr<worker>> workers_;
    std::size_t next_worker_ = 0;
    bool accepting_ = true;
};

}  // namespace kvd
