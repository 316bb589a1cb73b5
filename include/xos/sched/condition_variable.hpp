// Condition variables for fibers and plain threads.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <atomic>
#include <chrono>
#include <mutex>
#include <utility>
#include <xos/sched/mutex.hpp>
#include <xos/sched/wait.hpp>

namespace xos::sched {

/// As std::condition_variable_any, without spurious wake-ups. Who notifies should hold the mutex, or
/// have held it since it changed what is waited for. Any lock will do whose unlock() does not block;
/// with a std::mutex a fiber that comes back may block its worker.
class condition_variable {
  public:
    condition_variable() = default;
    condition_variable(const condition_variable&) = delete;
    condition_variable& operator=(const condition_variable&) = delete;

    /// Wakes who has waited longest.
    void notify_one() noexcept {
        if (waiting_.load(std::memory_order_relaxed)) notify_first();
    }
    void notify_all() noexcept {
        while (waiting_.load(std::memory_order_relaxed) && notify_first()) {
        }
    }

    template <class Lock>
    void wait(Lock& lock) {
        (void)wait_once(lock, nullptr);
    }
    template <class Lock>
    wait_result wait(Lock& lock, const wait_limits& limits) {
        return wait_once(lock, &limits);
    }
    template <class Lock, class Predicate>
    void wait(Lock& lock, Predicate holds) {
        while (!holds()) wait(lock);
    }
    /// @return what `holds` says at the end.
    template <class Lock, class Predicate>
    bool wait(Lock& lock, const wait_limits& limits, Predicate holds) {
        while (!holds()) {
            if (wait(lock, limits) != wait_result::ready) return holds();
        }
        return true;
    }
    template <class Lock, class Rep, class Period>
    wait_result wait_for(Lock& lock, const std::chrono::duration<Rep, Period>& d) {
        return wait(lock, wait_limits{.deadline = deadline_after(d)});
    }
    template <class Lock, class Rep, class Period, class Predicate>
    bool wait_for(Lock& lock, const std::chrono::duration<Rep, Period>& d, Predicate holds) {
        return wait(lock, wait_limits{.deadline = deadline_after(d)}, std::move(holds));
    }
    template <class Lock, class Clock, class Duration>
    wait_result wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& t) {
        return wait(lock, wait_limits{.deadline = deadline_at(t)});
    }
    template <class Lock, class Clock, class Duration, class Predicate>
    bool wait_until(Lock& lock, const std::chrono::time_point<Clock, Duration>& t,
                    Predicate holds) {
        return wait(lock, wait_limits{.deadline = deadline_at(t)}, std::move(holds));
    }

  private:
    template <class Lock>
    wait_result wait_once(Lock& lock, const wait_limits* limits) {
        detail::wait_token token;
        token.contended = limits && detail::limited(*limits);
        detail::wait_node node(token);
        enqueue(node);
        lock.unlock();
        const wait_result r = detail::wait(token, limits, "a condition variable", this);
        if (r != wait_result::ready) give_up(node);
        lock.lock();
        return r;
    }
    void enqueue(detail::wait_node& n) noexcept {
        const std::lock_guard guard(lock_);
        waiters_.push(n);
        waiting_.store(waiting_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
    void give_up(detail::wait_node& n) noexcept;
    bool notify_first() noexcept;

    std::atomic<std::uint32_t> waiting_{0};  // written under the lock
    spin_lock lock_;
    detail::wait_list waiters_;
};

}  // namespace xos::sched

#endif  // C++20
