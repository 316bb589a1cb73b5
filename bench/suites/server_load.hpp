// A server under load by many connections, each of which sends the next request when its answer is
// there.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "bench/suites/app_processes.hpp"

namespace xos::bench {

struct server {
    const char* program;
    /// Its command; may write files into the working directory, an empty one.
    command (*words)(std::uint16_t port);
    std::string_view first, first_ending;  ///< sent once
    std::string_view request, ending;
    unsigned at_once;  ///< requests in one piece
    unsigned connections;
    int end;  ///< the signal by which it ends well
};

// Commands of servers that keep nothing on disk.

command redis(std::uint16_t port);

template <unsigned Threads>
command memcached(std::uint16_t port) {
    return {find_program("memcached"),
            "-u",
            "root",
            "-l",
            "127.0.0.1",
            "-p",
            std::to_string(port),
            "-U",
            "0",
            "-t",
            std::to_string(Threads)};
}

class connection {
  public:
    /// Whether somebody listens; throws for any other reason.
    bool open(std::uint16_t port);
    connection() = default;
    connection(connection&& other) noexcept : socket_(other.socket_) { other.socket_ = -1; }
    connection& operator=(connection&&) = delete;
    ~connection();

    void send(std::string_view text) const;
    /// What is there, at least a byte.
    std::size_t receive(char* to, std::size_t most) const;
    /// The answer, until it ends so.
    std::string ask(std::string_view request, std::string_view ending) const;
    int descriptor() const { return socket_; }

  private:
    int socket_ = -1;
};

/// Ended with the object, if it has not ended before.
class process {
  public:
    process(const command& words, const std::vector<std::string>& variables)
        : words_(words), pid_(start_program(words, variables)) {}
    process(const process&) = delete;
    process& operator=(const process&) = delete;
    ~process();
    pid_t id() const { return pid_; }
    void end(int signal);

  private:
    command words_;
    pid_t pid_;
};

/// A server that has answered, and its connections.
class running_server {
  public:
    running_server(const server& s, const std::vector<std::string>& variables);

    /// So many; more where they do not fill all connections, or the last one's piece. When it
    /// returns, all have been answered.
    void load(unsigned requests);

    pid_t id() const { return process_.id(); }
    /// By a connection of its own, beside the load.
    std::string ask(std::string_view request, std::string_view ending) const {
        return first_->ask(request, ending);
    }
    /// Returns the most KiB that it has had resident, and its children.
    long stop();

  private:
    const server& server_;
    std::uint16_t port_;
    process process_;
    std::size_t answer_ = 0;
    std::string burst_;
    std::optional<connection> first_;
    std::vector<connection> connections_;
};

}  // namespace xos::bench
