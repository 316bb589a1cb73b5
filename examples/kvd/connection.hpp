// One client: bytes in, commands, bytes out. Never blocks.
#pragma once

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

  private:
    // Replies nobody fetches: past this no further command is carried out until they are sent.
    static constexpr std::size_t max_unsent = std::size_t{1} << 20;

    enum class phase {
        open,
        half_closed,  // the client sends no more: carry out what it sent, then close
        ending,       // QUIT or a protocol error: send the replies, then close
    };
    enum class backlog { none, remains };
    enum class sent { all, some, failed };

    waiting_for pump(time_point now);
    backlog execute_some(time_point now);
    sent send_replies();

    unique_fd socket_;
    service& host_;
    parser in_;
    byte_buffer out_;
    phase phase_ = phase::open;
};

}  // namespace kvd
