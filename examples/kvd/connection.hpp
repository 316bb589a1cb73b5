// One client: bytes in, commands, bytes out. Never blocks.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "commands.hpp"
#include "resp.hpp"
#include "service.hpp"
#include "unique_fd.hpp"

namespace kvd {

/// What a connection waits for next.
enum class waiting_for { input, output, nothing };

class connection {
  public:
    connection(unique_fd socket, service& host);
    ~connection();
    connection(const connection&) = delete;
    connection& operator=(const connection&) = delete;

    /// Receives once, carries out what is complete, sends what the socket takes.
    /// `nothing`: the connection is over, destroy it.
    waiting_for on_readable(time_point now);

    /// Goes on sending, then with commands that waited for room.
    waiting_for on_writable(time_point now);

    // The same in steps, for a worker that makes the system calls of many connections at once.

    int fd() const noexcept { return socket_.get(); }
    /// Where to receive to; empty: no more is wanted.
    std::span<char> room();
    /// What recv() has said, or -errno; false: the connection is over.
    bool received(std::ptrdiff_t result);
    /// Carries out what is complete, as long as the replies do not become too many.
    void carry_out(time_point now) { backlog_ = execute_some(now); }
    std::string_view unsent() const noexcept { return out_.view(); }
    /// What send() of unsent() has said, or -errno; false: the connection is over.
    bool sent(std::ptrdiff_t result);
    /// Whether commands wait for room.
    bool has_backlog() const noexcept { return backlog_ == backlog::remains; }
    /// Whether the connection ends once its replies are sent.
    bool is_ending() const noexcept { return phase_ != phase::open && !has_backlog(); }

  private:
    // Replies nobody fetches: past this no further command is carried out until they are sent.
    static constexpr std::size_t max_unsent = std::size_t{1} << 20;

    enum class phase {
        open,
        half_closed,  // the client sends no more: carry out what it sent, then close
        ending,       // QUIT or a protocol error: send the replies, then close
    };
    enum class backlog { none, remains };
    enum class progress { all, some, failed };

    waiting_for pump(time_point now);
    backlog execute_some(time_point now);
    progress send_replies();

    unique_fd socket_;
    service& host_;
    parser in_;
    byte_buffer out_;
    phase phase_ = phase::open;
    backlog backlog_ = backlog::none;
};

}  // namespace kvd
