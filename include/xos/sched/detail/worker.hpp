// The parts of a scheduler that templates and inline functions look into. Not for use.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <stop_token>
#include <utility>
#include <vector>
#include <xos/sched/policy.hpp>

namespace xos::sched::detail {

class core;
class stack_region;
struct fiber_state;
struct local_table;
struct wait_token;
struct worker;

/// What runs on a thread now: a fiber, a worker's own loop, or a plain thread.
struct execution {
    worker* home = nullptr;  ///< null for a plain thread
    /// The same if this is a fiber that switches on the short way: it is pinned, its stack has a
    /// guard page, and the policy is an in_order_policy.
    worker* quick = nullptr;
    local_table* locals = nullptr;
};

/// What a plain thread is until it needs to be told from others.
extern execution plain_thread;

/// What the calling thread runs; on a plain thread `plain_thread` or its own.
extern __thread execution* current_execution __asm__("xos_sched_current_execution")
    __attribute__((tls_model("initial-exec")));

/// The same, read anew each time. The compiler must not keep the address of the variable across a
/// switch: a fiber that has moved would then read another thread's.
inline execution* load_current() noexcept {
    execution* e;
    asm volatile("movq xos_sched_current_execution@gottpoff(%%rip), %0\n\tmovq %%fs:(%0), %0"
                 : "=r"(e));
    return e;
}

/// Gives a plain thread one.
execution& adopt_thread();

inline execution& current() {
    execution* const e = load_current();
    return e != &plain_thread ? *e : adopt_thread();
}

/// What the C++ runtime keeps for a thread about exceptions being handled (Itanium C++ ABI,
/// section 2.2.2). Each fiber has its own, so that one may switch in a catch block.
struct exception_globals {
    void* caught = nullptr;
    std::uintptr_t uncaught = 0;
};

/// `joiner` is one of these, or the wait_token of who waits.
inline constexpr std::uintptr_t running = 0, finished = 1, detached = 2;

/// A fiber. It lies at the top of its stack, and so does its callable below it.
struct alignas(64) fiber_state : execution, task {
    /// Where it goes on; null while anything runs on its stack. So who is to run it, or to use its
    /// stack anew, waits until it is not null.
    std::atomic<void*> context{nullptr};
    exception_globals exceptions;
    /// The timer that is to wake it; 0: none. Other workers compare it with what they have left.
    std::atomic<std::uint64_t> timer{0};
    char* stack_low = nullptr;

    stack_region* region = nullptr;
    char* callable = nullptr;  ///< the initial stack pointer is below
    void (*body)(fiber_state&) = nullptr;
    std::uint32_t slot = 0;
    bool migratable = false;
    bool guarded = false;
    bool arrived = false;            ///< its worker has counted it
    std::atomic<bool> alive{false};  ///< for listings: this is a fiber
    std::atomic<std::uintptr_t> joiner{running};

    std::exception_ptr thrown;
    spin_lock stop_lock;
    std::optional<std::stop_source> stop;

    /// For listings: what it waits for, and on which object.
    std::atomic<const char*> waits_for{nullptr};
    std::atomic<const void*> waits_on{nullptr};
    std::uint64_t id = 0;
    char name[32] = {};

    // For sanitizers. They are here in every build, so that all agree on the layout.
    void* fake_stack = nullptr;
    void* thread_sanitizer_fiber = nullptr;
    const void* stack_bottom = nullptr;
    std::size_t stack_bytes = 0;
};

inline constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();

struct timer_entry {
    std::int64_t deadline;
    std::uint64_t id;  ///< it is stale when its fiber has another one
    fiber_state* fiber;
    wait_token* token;
};

/// The deadlines for which fibers of one worker wait: a heap with lazy deletion, because most
/// timeouts are taken back. Its stale entries never outnumber the others by more than twice.
class timer_heap {
  public:
    void arm(fiber_state& f, std::int64_t deadline, wait_token& token, std::uint64_t id);
    void disarm(fiber_state& f) noexcept;
    /// The earliest deadline; `never` if there is none.
    [[nodiscard]] std::int64_t next() noexcept;
    /// Takes one that is due, or returns null.
    wait_token* take_due(std::int64_t now) noexcept;
    [[nodiscard]] bool empty() const noexcept { return live_ == 0; }
    void clear() noexcept;
    [[nodiscard]] std::size_t entries() const noexcept { return heap_.size(); }

  private:
    void drop_stale() noexcept;
    std::vector<timer_entry> heap_;
    std::size_t live_ = 0;
};

struct counters {
    // Written by the worker alone; `dispatches` now and then.
    std::atomic<std::uint64_t> dispatches{0}, spawned{0}, finished{0}, steals{0}, parks{0};
    static void add(std::atomic<std::uint64_t>& c) noexcept {
        c.store(c.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    }
};

using next_function = task* (*)(worker&);

struct worker {
    // ---- every switch
    /// Not 0: there is something for the policy. Set after what it is about.
    std::atomic<std::uint32_t> attention{0};
    unsigned until_poll = 1;  ///< dispatches until poll()
    task_list ready;          ///< worker_facts::own
    exception_globals* exceptions = nullptr;
    next_function next = nullptr;

    // ---- the rest
    std::atomic<task*> inbox{nullptr};  ///< became ready by other threads; the newest first
    task_list incoming;                 ///< became ready here, and the policy does not know yet
    bool in_order = false;              ///< the policy is an in_order_policy
    counters count;
    fiber_state root;  ///< the worker's own loop
    core* owner = nullptr;
    unsigned index = 0;
    unsigned poll_interval = 256;
    unsigned polled_at = 1;  ///< until_poll then
    std::int64_t last_poll = 0;
    timer_heap timers;
    std::uint64_t last_timer = 0;
    std::uint64_t last_id = 0;
    stack_region* stacks = nullptr;
    /// The detached fiber that ended last. Its stack is free once another one runs.
    fiber_state* limbo = nullptr;
    std::uint64_t arrived = 0;  ///< fibers that began here
    /// While it sleeps: its next deadline.
    std::atomic<std::int64_t> idle_deadline{0};
    std::atomic<bool> gone{true};  ///< no thread runs it
    /// 1 while it sleeps, or is about to.
    alignas(64) std::atomic<std::uint32_t> parked{0};
    std::atomic<std::uint64_t> stolen_from{0};
    std::atomic<bool> retired{false};  ///< it leaves when it has no fiber left

    /// `f`, which waits here, is to go on. On this worker only.
    void make_ready(fiber_state& f) noexcept {
        if (f.timer.load(std::memory_order_relaxed)) timers.disarm(f);
        add(f);
    }
    void add(fiber_state& f) noexcept {
        if (f.quick)
            ready.push(f);
        else
            add_to_policy(f);
    }
    /// What others may take is with the policy at once: this worker may be busy for long.
    void add_to_policy(fiber_state& f) noexcept;
    void poll_soon() noexcept {
        polled_at -= until_poll - 1;
        until_poll = 1;
    }
    /// The same, from any other thread.
    void post(fiber_state& f) noexcept;
    /// Takes what others have posted.
    void take_inbox() noexcept;
    /// Timers and hooks. Every now and then; a safe point.
    void poll();
    /// Another worker may be asleep, and there is work for it.
    void wake_thief() noexcept;
};

template <class Policy>
struct worker_of : worker {
    Policy policy;
};

/// What became ready goes to the policy, and the policy says what runs.
template <class Policy>
[[gnu::always_inline]] inline task* next_of_policy(worker& w) {
    Policy& p = static_cast<worker_of<Policy>&>(w).policy;
    if (--w.until_poll == 0) [[unlikely]]
        w.poll();
    if (w.attention.load(std::memory_order_relaxed)) {
        // Taken back before the look, so that what comes after the look is not forgotten.
        w.attention.exchange(0, std::memory_order_seq_cst);
        if (w.inbox.load(std::memory_order_relaxed)) w.take_inbox();
        for (task* t = w.incoming.take_all(); t;) {
            task* const following = t->next;
            p.enqueue(*t);
            t = following;
        }
    }
    task* const chosen = p.pick();
    if constexpr (in_order_policy<Policy>) {
        if (p.size()) w.attention.store(1, std::memory_order_relaxed);
    }
    return chosen;
}

template <class Policy>
task* next_task(worker& w) {
    return next_of_policy<Policy>(w);
}

/// A policy as the core knows it: nothing of this is called on the way of a switch but `next`, and
/// that only where the policy is not the default.
struct policy_functions {
    worker* (*create)(const worker_facts&);
    void (*destroy)(worker*);
    next_function next;
    void (*enqueue)(worker&, task&);
    task* (*steal)(worker&);
    std::size_t (*size)(const worker&);
    /// Forgets every task: in the child of a fork.
    void (*reset)(worker&, const worker_facts&);
};

template <class Policy>
inline constexpr policy_functions functions_of{
    .create = [](const worker_facts& facts) -> worker* {
        auto* const w = new worker_of<Policy>;
        w->in_order = in_order_policy<Policy>;
        w->policy.start({.index = facts.index, .seed = facts.seed, .own = &w->ready});
        return w;
    },
    .destroy = [](worker* w) { delete static_cast<worker_of<Policy>*>(w); },
    .next = next_task<Policy>,
    .enqueue = [](worker& w, task& t) { static_cast<worker_of<Policy>&>(w).policy.enqueue(t); },
    .steal = [](worker& w) -> task* { return static_cast<worker_of<Policy>&>(w).policy.steal(); },
    .size = [](const worker& w) -> std::size_t {
        return static_cast<const worker_of<Policy>&>(w).policy.size();
    },
    .reset =
        [](worker& w, const worker_facts& facts) {
            auto& p = static_cast<worker_of<Policy>&>(w).policy;
            std::destroy_at(&p);
            std::construct_at(&p);
            p.start({.index = facts.index, .seed = facts.seed, .own = &w.ready});
        },
};

}  // namespace xos::sched::detail

#endif  // C++20
