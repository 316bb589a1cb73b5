// What a scheduling policy sees of a fiber.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstddef>
#include <cstdint>
#include <limits>

namespace xos::sched {

/// A fiber that is ready to run. While a policy holds it, `next` and `sequence` are the policy's.
struct task {
    /// Links the queue that holds it.
    task* next = nullptr;
    /// For order of arrival.
    std::uint64_t sequence = 0;
    /// When it ought to be done: nanoseconds of std::chrono::steady_clock. The largest value: never.
    std::int64_t deadline = std::numeric_limits<std::int64_t>::max();
    /// Higher is more urgent.
    std::int32_t priority = 0;
    /// Whether another worker may run it now. steal() may hand out no others.
    bool shareable = false;
};

static_assert(offsetof(task, next) == 0);

/// First in, first out. Owns nothing.
class task_list {
  public:
    task_list() = default;
    task_list(const task_list&) = delete;
    task_list& operator=(const task_list&) = delete;

    [[nodiscard]] bool empty() const noexcept { return !first_; }
    [[nodiscard]] std::size_t size() const noexcept {
        std::size_t n = 0;
        for (const task* t = first_; t; t = t->next) n++;
        return n;
    }
    [[nodiscard]] task* front() const noexcept { return first_; }
    [[nodiscard]] task* back() const noexcept {
        // `next` is the first member.
        return first_ ? reinterpret_cast<task*>(end_) : nullptr;
    }
    void push(task& t) noexcept {
        t.next = nullptr;
        *end_ = &t;
        end_ = &t.next;
    }
    /// Null when it is empty.
    task* pop() noexcept {
        task* const t = first_;
        if (t && !(first_ = t->next)) end_ = &first_;
        return t;
    }
    /// Adds one and takes the first of those that were there before. It must not be empty.
    task& exchange_front(task& t) noexcept {
        push(t);
        task& taken = *first_;
        first_ = taken.next;
        return taken;
    }
    /// All of it, linked by `next`.
    task* take_all() noexcept {
        task* const t = first_;
        first_ = nullptr;
        end_ = &first_;
        return t;
    }

  private:
    task* first_ = nullptr;
    task** end_ = &first_;
};

}  // namespace xos::sched

#endif  // C++20
