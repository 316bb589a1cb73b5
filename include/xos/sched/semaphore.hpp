// Semaphore, latch and barrier for fibers and plain threads.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <chrono>
#include <cstddef>
#include <functional>
#include <mutex>
#include <utility>
#include <xos/sched/wait.hpp>

namespace xos::sched {

/// As std::counting_semaphore. Who waits gets the units in order of arrival.
class semaphore {
  public:
    explicit semaphore(std::ptrdiff_t units = 0) noexcept : units_(units) {}
    semaphore(const semaphore&) = delete;
    semaphore& operator=(const semaphore&) = delete;

    void release(std::ptrdiff_t units = 1) noexcept;
    void acquire() { (void)take(nullptr); }
    [[nodiscard]] bool try_acquire() noexcept;
    /// A unit was taken if the result is `ready`.
    [[nodiscard]] wait_result try_acquire(const wait_limits& limits) { return take(&limits); }
    template <class Rep, class Period>
    [[nodiscard]] bool try_acquire_for(const std::chrono::duration<Rep, Period>& d) {
        return try_acquire({.deadline = deadline_after(d)}) == wait_result::ready;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& t) {
        return try_acquire({.deadline = deadline_at(t)}) == wait_result::ready;
    }

  private:
    wait_result take(const wait_limits* limits);
    spin_lock lock_;
    std::ptrdiff_t units_;
    detail::wait_list waiters_;
};

/// As std::latch: opens once, when it has been counted down to 0.
class latch {
  public:
    explicit latch(std::ptrdiff_t expected) noexcept : left_(expected) {}
    latch(const latch&) = delete;
    latch& operator=(const latch&) = delete;

    void count_down(std::ptrdiff_t n = 1) noexcept;
    [[nodiscard]] bool try_wait() const noexcept;
    void wait() { (void)wait_with(nullptr); }
    wait_result wait(const wait_limits& limits) { return wait_with(&limits); }
    template <class Rep, class Period>
    [[nodiscard]] bool wait_for(const std::chrono::duration<Rep, Period>& d) {
        return wait({.deadline = deadline_after(d)}) == wait_result::ready;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool wait_until(const std::chrono::time_point<Clock, Duration>& t) {
        return wait({.deadline = deadline_at(t)}) == wait_result::ready;
    }
    void arrive_and_wait(std::ptrdiff_t n = 1) {
        count_down(n);
        wait();
    }

  private:
    wait_result wait_with(const wait_limits* limits);
    mutable spin_lock lock_;
    std::ptrdiff_t left_;
    detail::wait_list waiters_;
};

/// As std::barrier: opens whenever all expected have arrived, and is closed anew.
class barrier {
  public:
    /// `completion` runs on who arrives last, before the others go on. It must not wait.
    explicit barrier(std::ptrdiff_t expected, std::function<void()> completion = {})
        : expected_(expected), left_(expected), completion_(std::move(completion)) {}
    barrier(const barrier&) = delete;
    barrier& operator=(const barrier&) = delete;

    void arrive_and_wait() { (void)arrive(nullptr); }
    /// Who gives up has arrived nevertheless.
    wait_result arrive_and_wait(const wait_limits& limits) { return arrive(&limits); }
    /// Arrives, and is not expected any more.
    void arrive_and_drop();

  private:
    wait_result arrive(const wait_limits* limits);
    /// Under the lock.
    void open(detail::wake_list& woken);
    spin_lock lock_;
    std::ptrdiff_t expected_, left_;
    std::function<void()> completion_;
    detail::wait_list waiters_;
};

}  // namespace xos::sched

#endif  // C++20
