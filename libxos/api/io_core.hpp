// What an io_queue is made of: its operations, each in a slot that does not move, and an engine that
// carries them out.
#pragma once

#include <netinet/in.h>
#include <sys/un.h>

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>
#include <xos/io_queue.hpp>

namespace xos::api {

struct kept_file;

/// As the kernel has it.
struct kernel_time {
    std::int64_t seconds = 0, nanoseconds = 0;
};
kernel_time kernel_time_of(std::chrono::nanoseconds t);

using io_deadline = std::chrono::steady_clock::time_point;
inline constexpr io_deadline no_deadline = io_deadline::max();
/// From now; not negative.
std::chrono::nanoseconds remaining(io_deadline end);

}  // namespace xos::api

namespace xos::detail {

enum class io_state : std::uint8_t { free, queued, under_way, ended };

/// What an engine can report about an operation. All that it was asked for is reported, in any
/// order, before the operation counts as ended.
enum class io_part : std::uint8_t { operation, deadline, cancellation };

struct alignas(16) io_slot {
    io_core* core = nullptr;
    io_request request;
    std::int64_t result = 0;
    io_state state = io_state::free;
    std::uint8_t parts = 0;  ///< that are to be reported
    bool has_result = false, timed_out = false, cancel_asked = false, has_handle = false;

    /// Of its chain, as long as they have not ended.
    io_slot *before = nullptr, *after = nullptr;

    api::kernel_time time;                          ///< of a timeout
    std::optional<std::chrono::nanoseconds> limit;  ///< of one with a deadline
    api::kernel_time limit_time;

    std::variant<std::monostate, std::vector<std::byte>, std::string, owned_bytes> buffer;
    std::unique_ptr<char[]> copied;

    io_listener* listener = nullptr;
    std::uint64_t tag = 0, fiber = 0;

    // Only for plain calls.
    api::kept_file* file = nullptr;
    api::io_deadline end = api::no_deadline;
    std::size_t moved = 0, place = 0;
    bool connecting = false, retries = false;
    short events = 0;
};

}  // namespace xos::detail

namespace xos::api {

using detail::io_code;
using detail::io_part;
using detail::io_slot;
using detail::io_state;

/// Carries operations out. A function that meets an error of the queue as a whole throws
/// std::system_error; nothing is lost by that.
class io_engine {
  public:
    virtual ~io_engine() = default;
    /// Takes whole chains. They need not begin before flush() or wait().
    virtual void push(std::span<io_slot* const> chains) = 0;
    /// Takes the wish to end one that is under way. It need not act before flush() or wait().
    virtual void cancel(io_slot& slot) = 0;
    virtual void flush() = 0;
    /// Reports what has ended, if that can be told without a crossing or Linux asks for one.
    virtual void look() = 0;
    /// Flushes, and waits for something to report; whether there was anything. There was not at the
    /// deadline, and after a signal.
    virtual bool wait(io_deadline deadline) = 0;
    virtual io_transport transport() const noexcept = 0;
};

struct io_refusal {
    int error = 0;
    std::string reason;
};

/// Null, with the reason, if Linux refuses.
std::unique_ptr<io_engine> make_ring_engine(detail::io_core& core, const io_options& options,
                                            io_refusal& why);
std::unique_ptr<io_engine> make_plain_engine(detail::io_core& core);

/// Whether fewer bytes than this are no success for what is linked behind; 0: any result is good.
std::size_t full_transfer(const detail::io_request& r);

}  // namespace xos::api

namespace xos::detail {

class io_core {
  public:
    explicit io_core(const io_options& options);
    ~io_core();

    void check() const;  ///< throws on another thread, and after a fork
    io_slot& add(const io_request& wanted);
    void link();
    void within(std::chrono::nanoseconds at_most);
    std::size_t submit();
    std::size_t collect();
    std::size_t wait_any(api::io_deadline deadline);
    bool wait(io_slot& slot, api::io_deadline deadline);
    bool ready(io_slot& slot);
    void cancel(io_slot& slot);
    /// The queue ends.
    void close();

    void adopt(io_slot& slot) noexcept;
    void abandon(io_slot& slot) noexcept;  ///< its handle goes
    bool is_here() const noexcept;
    bool is_child() const noexcept;

    // ---- for engines

    void report(io_slot& slot, io_part part, std::int64_t result);

    std::size_t under_way = 0;
    std::unique_ptr<api::io_engine> engine;
    std::string reason;

  private:
    void end(io_slot& slot, std::int64_t result);
    void release(io_slot& slot) noexcept;
    void push();
    void cancel_again();
    void cancel_queued(io_slot& slot);

    io_options options_;
    std::size_t most_in_chain_;
    const void* thread_;
    const volatile char* alive_ = nullptr;  ///< in memory that is zero in a forked child
    std::deque<io_slot> slots_;
    std::vector<io_slot*> free_, queued_, again_;
    std::size_t handles_ = 0, ended_ = 0, chain_ = 0;
    bool closed_ = false, link_next_ = false;
    std::optional<std::chrono::nanoseconds> within_next_;
};

}  // namespace xos::detail
