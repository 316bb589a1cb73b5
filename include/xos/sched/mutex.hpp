// Mutual exclusion between fibers, and between fibers and plain threads.
//
// A lock that is given up goes to whoever has waited longest: nobody overtakes, and only one is
// woken. They work with std::lock_guard, std::unique_lock, std::scoped_lock and std::shared_lock.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <xos/sched/wait.hpp>

namespace xos::sched {

namespace detail {

const void* holder_of(const char* what, const void* on) noexcept;

/// try_lock_for() and try_lock_until(), of try_lock(const wait_limits&).
template <class Self>
struct timed_lockable {
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& d) {
        return static_cast<Self*>(this)->try_lock({.deadline = deadline_after(d)}) ==
               wait_result::ready;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& t) {
        return static_cast<Self*>(this)->try_lock({.deadline = deadline_at(t)}) ==
               wait_result::ready;
    }
};

}  // namespace detail

/// Between fibers of any workers and plain threads. Meets TimedLockable.
class mutex : public detail::timed_lockable<mutex> {
  public:
    mutex() = default;
    mutex(const mutex&) = delete;
    mutex& operator=(const mutex&) = delete;

    /// @throws std::system_error resource_deadlock_would_occur when the caller holds it.
    void lock() {
        std::uintptr_t expected = 0;
        if (!state_.compare_exchange_strong(expected, self(), std::memory_order_acquire,
                                            std::memory_order_relaxed)) [[unlikely]]
            (void)lock_slowly(nullptr);
    }
    [[nodiscard]] bool try_lock() noexcept {
        std::uintptr_t expected = 0;
        return state_.compare_exchange_strong(expected, self(), std::memory_order_acquire,
                                              std::memory_order_relaxed);
    }
    /// It is locked if the result is `ready`.
    [[nodiscard]] wait_result try_lock(const wait_limits& limits) {
        return try_lock() ? wait_result::ready : lock_slowly(&limits);
    }
    /// By who holds it; another caller ends the process.
    void unlock() noexcept {
        std::uintptr_t expected = self();
        if (!state_.compare_exchange_strong(expected, 0, std::memory_order_release,
                                            std::memory_order_relaxed)) [[unlikely]]
            unlock_slowly();
    }

  private:
    friend const void* detail::holder_of(const char* what, const void* on) noexcept;
    static std::uintptr_t self() noexcept {
        return reinterpret_cast<std::uintptr_t>(&detail::current());
    }
    wait_result lock_slowly(const wait_limits* limits);
    void unlock_slowly() noexcept;

    std::atomic<std::uintptr_t> state_{0};  // who holds it; bit 0: somebody waits
    spin_lock lock_;
    detail::wait_list waiters_;
};

/// Between fibers of one worker, which must be pinned: no atomic instruction. Meets TimedLockable.
class local_mutex : public detail::timed_lockable<local_mutex> {
  public:
    local_mutex() = default;
    local_mutex(const local_mutex&) = delete;
    local_mutex& operator=(const local_mutex&) = delete;

    /// @throws std::system_error resource_deadlock_would_occur when the caller holds it.
    void lock() {
        if (holder_) [[unlikely]]
            (void)lock_slowly(nullptr);
        else
            holder_ = detail::load_current();
    }
    [[nodiscard]] bool try_lock() noexcept {
        if (holder_) return false;
        holder_ = detail::load_current();
        return true;
    }
    [[nodiscard]] wait_result try_lock(const wait_limits& limits) {
        return try_lock() ? wait_result::ready : lock_slowly(&limits);
    }
    void unlock() noexcept {
        if (waiters_.empty()) [[likely]]
            holder_ = nullptr;
        else
            hand_over();
    }

  private:
    wait_result lock_slowly(const wait_limits* limits);
    void hand_over() noexcept;

    detail::execution* holder_ = nullptr;
    detail::wait_list waiters_;
};

/// Many readers or one writer, in order of arrival: a reader that comes after a waiting writer
/// waits, too. Meets SharedTimedLockable.
class shared_mutex : public detail::timed_lockable<shared_mutex> {
  public:
    shared_mutex() = default;
    shared_mutex(const shared_mutex&) = delete;
    shared_mutex& operator=(const shared_mutex&) = delete;

    void lock() { (void)acquire(writer, nullptr); }
    [[nodiscard]] bool try_lock() noexcept { return take(writer); }
    [[nodiscard]] wait_result try_lock(const wait_limits& limits) {
        return acquire(writer, &limits);
    }
    void unlock() noexcept;

    void lock_shared() { (void)acquire(reader, nullptr); }
    [[nodiscard]] bool try_lock_shared() noexcept { return take(reader); }
    [[nodiscard]] wait_result try_lock_shared(const wait_limits& limits) {
        return acquire(reader, &limits);
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& d) {
        return try_lock_shared({.deadline = deadline_after(d)}) == wait_result::ready;
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& t) {
        return try_lock_shared({.deadline = deadline_at(t)}) == wait_result::ready;
    }
    void unlock_shared() noexcept;

  private:
    enum kind : std::uintptr_t { reader, writer };
    bool free_for(kind k) const noexcept;
    bool take(kind k) noexcept;
    wait_result acquire(kind k, const wait_limits* limits);
    /// Under the lock: those in front that may have it now get it.
    void hand_over(detail::wake_list& woken) noexcept;

    spin_lock lock_;
    std::uint32_t readers_ = 0;
    bool written_ = false;
    detail::wait_list waiters_;
};

}  // namespace xos::sched

#endif  // C++20
