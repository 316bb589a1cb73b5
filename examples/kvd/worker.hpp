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
#include <optional>
#include <unordered_map>
#include <vector>
#include <xos/batch.hpp>
#include <xos/io_queue.hpp>

#include "connection.hpp"
#include "service.hpp"
#include "unique_fd.hpp"

namespace kvd {

/// The time now, in the store's resolution.
time_point read_clock() noexcept;

/// How a worker makes its system calls.
enum class io {
    epoll,  ///< one after another
    batch,  ///< those of all ready connections at once: two crossings a turn of the loop
    uring,  ///< operations under way on all connections: one crossing a turn of the loop
};

class worker {
  public:
    worker(service& host, io way);

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
        // For io::batch.
        bool replies = false;  ///< in replying_
        bool listed = false;   ///< in readable_
        bool hungry = false;   ///< there may be something to receive
        // For io::uring. Their buffers are in the connection.
        xos::borrowing_io_future<std::size_t> sending = {}, receiving = {};
    };
    using client_map = std::unordered_map<int, client>;
    struct watched {
        int fd;
        std::function<void()> ready;
    };

    static constexpr milliseconds drain_limit{2000};

    int wait(milliseconds limit);
    void turn(milliseconds limit);
    void turn_in_batches(milliseconds limit);
    int send_and_wait(milliseconds limit);
    void find_readable(int count);
    void receive(time_point now);
    void carry_out(client_map::iterator at, time_point now);
    void list(client& who);
    void turn_under_way(milliseconds limit);
    void await_set();
    void look_at_set(time_point now);
    void finish_sending(client_map::iterator at, time_point now);
    void finish_receiving(client_map::iterator at, time_point now);
    void begin(client_map::iterator at, time_point now);
    void call_back(client& who);
    void end(client_map::iterator at);
    bool handle_watched(int fd);
    client_map::iterator meet(int fd, waiting_for registered);
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

    // For io::batch.
    struct transfer {
        int fd;
        xos::operation<std::size_t> call;
        std::size_t room;
    };
    io way_;
    xos::batch calls_;
    std::vector<transfer> transfers_;
    std::vector<int> replying_, readable_;
    std::vector<int> ended_;  ///< in this turn: events may still name them

    // For io::uring.
    struct news : xos::io_listener {
        void ended(std::uint64_t tag) noexcept override { tags.push_back(tag); }
        std::vector<std::uint64_t> tags, being_read;
    };
    std::optional<xos::io_queue> queue_;  ///< of the thread that is in run()
    news news_;
    xos::io_future<short> set_is_ready_;
};

}  // namespace kvd
