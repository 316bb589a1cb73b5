// Scheduling policies: which ready fiber a worker runs next.
//
// A policy is a class, and `basic_scheduler<Policy>` a scheduler that follows it. Each worker has a
// policy object of its own. These are its functions:
//
//     struct my_policy {
//         static constexpr promise keeps = promise::every_task_runs;
//         void start(const worker_facts& w);   // once, before all others
//         void enqueue(task& t);               // `t` became ready
//         task* pick();                        // the one to run now, or null
//         task* steal();                       // one for another worker, or null
//         std::size_t size() const;            // how many it holds
//     };
//
// Only the worker itself calls them, but for steal(), which other workers call at any time. So what
// steal() hands out must be under a lock, and steal() must take that lock even when there seems to
// be nothing: a worker that is about to park relies on seeing what was enqueued before. None of the
// functions may block or switch. `docs/scheduler.md` writes one; `xos/sched/policy_check.hpp` tests
// any.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <utility>
#include <vector>
#include <xos/sched/spin_lock.hpp>
#include <xos/sched/task.hpp>

namespace xos::sched {

struct worker_facts {
    unsigned index = 0;        ///< 0 is the thread that called run()
    std::uint64_t seed = 0;    ///< scheduler_options::seed
    task_list* own = nullptr;  ///< see in_order_policy
};

/// What a policy owes to a task that is ready while others always are.
enum class promise {
    every_task_runs,  ///< at the latest after everything that was ready before has run twice
    urgent_first,     ///< nothing: a more urgent task always goes first
};

template <class P>
concept policy = std::default_initializable<P> &&
    requires(P& p, const P& c, task& t, const worker_facts& w) {
    { P::keeps } -> std::convertible_to<promise>;
    p.start(w);
    p.enqueue(t);
    { p.pick() } -> std::same_as<task*>;
    { p.steal() } -> std::same_as<task*>;
    { c.size() } -> std::convertible_to<std::size_t>;
};

/// A policy that serves what is not shareable in order of arrival may say so:
///
///     static constexpr bool in_order = true;
///
/// Such tasks are then appended to `worker_facts::own` without enqueue(), and a fiber that yields to
/// another of them does not ask the policy as long as it holds nothing itself. pick() takes from
/// that list; size() does not count it.
template <class P>
concept in_order_policy = policy<P> && P::in_order;

/// The default. A worker serves those fibers that others may take, then its own, then those that
/// have come meanwhile, each in order of arrival. Idle workers take the oldest that may be taken.
class work_stealing {
  public:
    static constexpr promise keeps = promise::every_task_runs;
    static constexpr bool in_order = true;
    void start(const worker_facts& w) noexcept { own_ = w.own; }
    void enqueue(task& t) noexcept {
        if (!t.shareable) return own_->push(t);
        std::lock_guard guard(lock_);
        // Own ones were served without pick() meanwhile: nothing is known of them.
        if (shared_.empty()) own_last_ = nullptr, shared_left_ = 0;
        shared_.push(t);
        shared_size_.store(shared_size_.load(std::memory_order_relaxed) + 1,
                           std::memory_order_relaxed);
    }
    [[gnu::always_inline]] task* pick() noexcept {
        const std::size_t shared = shared_size_.load(std::memory_order_relaxed);
        if (shared == 0) [[likely]]
            return own_->pop();
        if (shared_left_ == 0 && !own_last_) {
            shared_left_ = shared;
            own_last_ = own_->back();
        }
        if (shared_left_ > 0) {
            shared_left_--;
            if (task* const t = steal()) return t;
            shared_left_ = 0;  // thieves were faster
        }
        task* const t = own_->pop();
        if (!t || t == own_last_) own_last_ = nullptr;
        return t ? t : steal();
    }
    task* steal() noexcept {
        std::lock_guard guard(lock_);
        task* const t = shared_.pop();
        if (t)
            shared_size_.store(shared_size_.load(std::memory_order_relaxed) - 1,
                               std::memory_order_relaxed);
        return t;
    }
    [[nodiscard]] std::size_t size() const noexcept {
        return shared_size_.load(std::memory_order_relaxed);
    }

  private:
    task_list* own_ = nullptr;
    // Of this round.
    std::size_t shared_left_ = 0;
    task* own_last_ = nullptr;
    std::atomic<std::size_t> shared_size_{0};  // written under the lock
    spin_lock lock_;
    task_list shared_;
};

/// A policy made of an order: one queue of the worker's own and one that others may take from. The
/// queue has push(task&), front(), pop(), size() and before(const task&, const task&).
template <class Queue, promise Keeps>
class ordered_policy {
  public:
    static constexpr promise keeps = Keeps;
    void start(const worker_facts&) noexcept {}
    void enqueue(task& t) {
        t.sequence = ++arrived_;
        if (!t.shareable) return own_.push(t);
        std::lock_guard guard(lock_);
        shared_.push(t);
    }
    task* pick() {
        std::lock_guard guard(lock_);
        const task* const own = own_.front();
        const task* const shared = shared_.front();
        return shared && (!own || Queue::before(*shared, *own)) ? shared_.pop() : own_.pop();
    }
    task* steal() {
        std::lock_guard guard(lock_);
        return shared_.pop();
    }
    [[nodiscard]] std::size_t size() const {
        std::lock_guard guard(lock_);
        return own_.size() + shared_.size();
    }

  private:
    std::uint64_t arrived_ = 0;
    Queue own_;
    mutable spin_lock lock_;
    Queue shared_;
};

struct fifo_queue : task_list {
    static bool before(const task& a, const task& b) noexcept { return a.sequence < b.sequence; }
};

/// A binary heap by an order of tasks.
template <class Order>
class heap_queue {
  public:
    static bool before(const task& a, const task& b) noexcept { return Order::before(a, b); }
    void push(task& t) {
        heap_.push_back(&t);
        std::push_heap(heap_.begin(), heap_.end(), after);
    }
    [[nodiscard]] task* front() const noexcept { return heap_.empty() ? nullptr : heap_.front(); }
    task* pop() noexcept {
        if (heap_.empty()) return nullptr;
        std::pop_heap(heap_.begin(), heap_.end(), after);
        task* const t = heap_.back();
        heap_.pop_back();
        return t;
    }
    [[nodiscard]] std::size_t size() const noexcept { return heap_.size(); }

  private:
    static bool after(const task* a, const task* b) noexcept { return before(*b, *a); }
    std::vector<task*> heap_;
};

struct by_priority {
    static bool before(const task& a, const task& b) noexcept {
        return a.priority != b.priority ? a.priority > b.priority : a.sequence < b.sequence;
    }
};

struct by_deadline {
    static bool before(const task& a, const task& b) noexcept {
        return a.deadline != b.deadline ? a.deadline < b.deadline : a.sequence < b.sequence;
    }
};

/// Strictly in order of arrival at the worker.
using fifo = ordered_policy<fifo_queue, promise::every_task_runs>;
/// The highest spawn_options::priority first, equal ones in order of arrival.
using priority = ordered_policy<heap_queue<by_priority>, promise::urgent_first>;
/// The earliest spawn_options::deadline first, equal ones in order of arrival.
using earliest_deadline_first = ordered_policy<heap_queue<by_deadline>, promise::urgent_first>;

/// Any ready fiber, by a generator that scheduler_options::seed starts: with one worker, the same
/// seed gives the same schedule. For tests.
class random_order {
  public:
    static constexpr promise keeps = promise::urgent_first;
    void start(const worker_facts& w) noexcept { state_ = w.seed * 2654435761u + w.index + 1; }
    void enqueue(task& t) {
        std::lock_guard guard(lock_);
        (t.shareable ? shared_ : own_).push_back(&t);
    }
    task* pick() {
        std::lock_guard guard(lock_);
        const std::size_t n = own_.size() + shared_.size();
        if (n == 0) return nullptr;
        const std::size_t i = random() % n;
        return i < own_.size() ? take(own_, i) : take(shared_, i - own_.size());
    }
    task* steal() {
        std::lock_guard guard(lock_);
        return shared_.empty() ? nullptr : take(shared_, random() % shared_.size());
    }
    [[nodiscard]] std::size_t size() const {
        std::lock_guard guard(lock_);
        return own_.size() + shared_.size();
    }

  private:
    /// splitmix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    std::uint64_t random() noexcept {
        std::uint64_t z = (state_ += 0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        return z ^ (z >> 31);
    }
    static task* take(std::vector<task*>& from, std::size_t i) noexcept {
        std::swap(from[i], from.back());
        task* const t = from.back();
        from.pop_back();
        return t;
    }

    std::uint64_t state_ = 1;
    mutable spin_lock lock_;
    std::vector<task*> own_, shared_;
};

static_assert(policy<work_stealing> && policy<fifo> && policy<priority> &&
              policy<earliest_deadline_first> && policy<random_order>);

}  // namespace xos::sched

#endif  // C++20
