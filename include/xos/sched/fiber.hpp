// Fibers: cheap threads of control that share the threads of a scheduler.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <algorithm>
#include <chrono>
#include <concepts>
#include <functional>
#include <memory>
#include <new>
#include <stop_token>
#include <string_view>
#include <type_traits>
#include <utility>
#include <xos/sched/detail/switch.hpp>
#include <xos/sched/detail/worker.hpp>
#include <xos/sched/wait.hpp>

namespace xos::sched {

/// Where a fiber may run after it has run for the first time.
enum class migration : std::uint8_t {
    pinned,   ///< on the worker that ran it first: thread-local variables keep their meaning
    allowed,  ///< on any worker: after whatever may switch, thread-local variables may be others
};

inline constexpr int any_worker = -1;

struct spawn_options {
    /// For reports. The first 31 bytes are kept.
    std::string_view name = {};
    migration migrate = migration::pinned;
    /// The worker that runs it; any_worker: that of the caller, unless an idle one takes it first.
    int worker = any_worker;
    /// For sched::priority.
    std::int32_t priority = 0;
    /// For sched::earliest_deadline_first; deadline_after() makes one.
    std::int64_t deadline = detail::never;
};

namespace detail {

/// A fiber with nothing on its stack yet, of the caller's scheduler or of `c`.
fiber_state& make_fiber(core* c, const spawn_options& options);
/// @throws std::system_error value_too_large
[[noreturn]] void refuse_callable();
/// Memory at the top of its stack, at most half of it.
inline void* reserve_callable(fiber_state& f, std::size_t bytes, std::size_t alignment) {
    const auto top = reinterpret_cast<std::uintptr_t>(&f);
    const std::size_t room = top - reinterpret_cast<std::uintptr_t>(f.stack_low);
    if (bytes + alignment > room / 2) [[unlikely]]
        refuse_callable();
    const std::uintptr_t at = (top - bytes) & ~(std::max<std::uintptr_t>(alignment, 16) - 1);
    f.callable = reinterpret_cast<char*>(at);
    return f.callable;
}
/// Makes it ready.
void launch(fiber_state& f, core* c, const spawn_options& options);
/// Its memory may be used again.
void release(fiber_state& f) noexcept;
std::stop_source& stop_source_of(fiber_state& f);

template <class Callable>
fiber_state& spawn(core* c, const spawn_options& options, Callable&& callable) {
    using stored = std::decay_t<Callable>;
    constexpr bool takes_token = std::is_invocable_v<stored&, std::stop_token>;
    static_assert(takes_token || std::is_invocable_v<stored&>,
                  "a fiber's callable takes nothing or a std::stop_token");
    fiber_state& f = make_fiber(c, options);
    try {
        ::new (reserve_callable(f, sizeof(stored), alignof(stored)))
            stored(std::forward<Callable>(callable));
        if constexpr (takes_token) (void)stop_source_of(f);
    } catch (...) {
        release(f);
        throw;
    }
    f.body = [](fiber_state& self) {
        auto* const p = std::launder(reinterpret_cast<stored*>(self.callable));
        const std::unique_ptr<stored, void (*)(stored*)> owner(p, [](stored* s) { s->~stored(); });
        if constexpr (takes_token)
            std::invoke(*p, stop_source_of(self).get_token());
        else
            std::invoke(*p);
    };
    launch(f, c, options);
    return f;
}

}  // namespace detail

/// Owns a fiber as std::jthread owns a thread.
class fiber {
  public:
    fiber() noexcept = default;
    /// A fiber of the caller's scheduler; call on a fiber. What `callable` returns is dropped; an
    /// exception that leaves it is thrown by join(). It may take a std::stop_token.
    /// @throws std::system_error operation_not_permitted outside a fiber, not_enough_memory when
    ///         scheduler_options::max_fibers exist, value_too_large when the callable does not fit.
    template <class Callable>
    requires(!std::same_as<std::remove_cvref_t<Callable>, fiber>) explicit fiber(
        Callable&& callable)
        : fiber(spawn_options{}, std::forward<Callable>(callable)) {}
    template <class Callable>
    fiber(const spawn_options& options, Callable&& callable)
        : state_(&detail::spawn(nullptr, options, std::forward<Callable>(callable))) {}
    explicit fiber(detail::fiber_state& s) noexcept : state_(&s) {}

    fiber(fiber&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    fiber& operator=(fiber&& other) noexcept {
        if (this != &other) {
            stop_and_join();
            state_ = std::exchange(other.state_, nullptr);
        }
        return *this;
    }
    /// Requests stop and waits for the end. An exception that nobody has joined for ends the
    /// process, as one of a detached fiber does.
    ~fiber() { stop_and_join(); }

    [[nodiscard]] bool joinable() const noexcept { return state_; }
    /// Waits for its end, on a fiber or a plain thread, and throws what it threw.
    /// @throws std::system_error invalid_argument when there is no fiber (it was joined, detached
    ///         or moved from), resource_deadlock_would_occur when it is the calling one.
    void join();
    /// The same, with limits. Only after `ready` it is no longer joinable.
    wait_result join(const wait_limits& limits);
    /// Nobody will join it. An exception that leaves it ends the process with a message.
    /// @throws std::system_error invalid_argument when there is no fiber.
    void detach();

    /// @return false if it had been requested before, or there is no fiber.
    bool request_stop();
    [[nodiscard]] std::stop_token stop_token() const;
    /// 0 when there is no fiber.
    [[nodiscard]] std::uint64_t id() const noexcept { return state_ ? state_->id : 0; }
    [[nodiscard]] std::string_view name() const noexcept { return state_ ? state_->name : ""; }

  private:
    wait_result join_within(const wait_limits* limits);
    void stop_and_join() noexcept;
    void take_result();
    detail::fiber_state* state_ = nullptr;
};

/// What a fiber does to itself. On a plain thread these do the like to the thread.
namespace this_fiber {

/// Lets all run that were ready before.
inline void yield() noexcept {
    detail::yield_quickly();
}

/// Until then.
/// @return `timed_out`, or `stopped` when limits.stop was requested first.
wait_result sleep(const wait_limits& limits);
template <class Rep, class Period>
void sleep_for(const std::chrono::duration<Rep, Period>& d) {
    (void)sleep({.deadline = deadline_after(d)});
}
template <class Clock, class Duration>
void sleep_until(const std::chrono::time_point<Clock, Duration>& t) {
    (void)sleep({.deadline = deadline_at(t)});
}

/// Requested by fiber::request_stop(). A plain thread's can never be.
[[nodiscard]] std::stop_token stop_token();
/// 0 on a plain thread.
[[nodiscard]] std::uint64_t id() noexcept;
[[nodiscard]] std::string_view name() noexcept;
/// The first 31 bytes are kept. On a plain thread it does nothing.
void set_name(std::string_view name) noexcept;
/// Whether the caller is a fiber.
[[nodiscard]] bool exists() noexcept;

}  // namespace this_fiber

}  // namespace xos::sched

#endif  // C++20
