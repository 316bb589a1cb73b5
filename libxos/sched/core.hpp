// What a scheduler is made of: its workers, their threads, and how they begin and end.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>
#include <xos/sched/scheduler.hpp>

#include "libxos/sched/stacks.hpp"

namespace xos::sched::detail {

inline constexpr unsigned most_workers = 1024;

class core {
  public:
    core(const scheduler_options& o, const policy_functions& p);
    ~core();
    core(const core&) = delete;
    core& operator=(const core&) = delete;

    // ---- one run (core.cpp)
    void begin_run();
    void abandon_run() noexcept;
    void finish_run(fiber_state& first);
    void set_workers(unsigned n);

    // ---- fibers (core.cpp)
    /// A stack for a fiber that no fiber of this scheduler spawns.
    fiber_state& take_outside();
    /// To that worker, or to each in turn. From `here`, or from outside where that is null.
    void place(fiber_state& f, int index, worker* here);

    // ---- a worker's life (worker.cpp)
    void run_worker(worker& w);
    void wake_idle() noexcept;

    // ---- in the child of a fork, on the fiber that forked (fork.cpp)
    void begin_child(worker& mine, fiber_state& self);

    /// While nothing runs it also knows who holds a lock.
    [[nodiscard]] std::string dump(bool nothing_runs = false) const;

    template <class F>
    void for_each_worker(F f) const {
        for (unsigned i = 0; i < made.load(std::memory_order_acquire); i++) {
            if (workers[i]) f(*workers[i]);
        }
    }
    template <class F>
    void for_each_region(F f) const {
        for_each_worker([&](const worker& w) { f(*w.stacks); });
        f(outside_stacks);
    }

    const scheduler_options options;
    const policy_functions& policy;

    std::array<worker*, most_workers> workers{};  ///< those below `made` are there for good
    std::atomic<unsigned> made{0};
    std::atomic<unsigned> wanted{1};
    /// Taken to spawn from outside, and to let a worker begin or leave.
    spin_lock membership;

    std::atomic<bool> running{false};
    std::atomic<bool> done{false};  ///< all workers leave
    std::atomic<bool> stuck{false};
    std::atomic<unsigned> threads{0};  ///< that run workers
    std::atomic<unsigned> idle{0};     ///< workers that look for work, or sleep
    std::atomic<unsigned> quiet{0};    ///< those of them that have found none
    std::atomic<std::uint64_t> outside_spawned{0};
    std::int64_t simulated_now = 0;
    [[nodiscard]] stack_guard guards() const noexcept;

  private:
    worker& make_worker(unsigned index);
    void start_thread(worker& w);
    void end_run() noexcept;
    [[nodiscard]] bool quiescent() const noexcept;
    [[nodiscard]] bool is_deadlock() const noexcept;
    bool may_leave(worker& w) noexcept;
    bool steal(worker& thief);
    void idle_once(worker& w);
    void sleep_until_woken(worker& w);
    void forget_fibers() noexcept;

    spin_lock outside_lock;
    std::uint64_t last_outside_id = 0;
    stack_region outside_stacks;
    std::array<std::thread, most_workers> thread_of{};
    unsigned next_outside = 0;
};

/// Continues `f`, which waits, on its worker. On any thread.
void resume(fiber_state& f) noexcept;
/// From the worker's own loop to a fiber.
void switch_from_root(worker& w, fiber_state& to) noexcept;
/// Nobody will join it: writes what it threw, and ends the process.
[[noreturn]] void report_unhandled(const fiber_state& f) noexcept;
void destroy_locals(execution& e) noexcept;
/// It begins with its body.
void prepare_context(fiber_state& f) noexcept;
void watch_forks();
/// Ends the sleep of a worker, or keeps it from beginning.
void unpark(worker& w) noexcept;
/// Who holds the lock on which a fiber waits; null if it is none.
const void* holder_of(const char* what, const void* on) noexcept;

/// Null on a plain thread, and in a worker's own loop.
inline fiber_state* current_fiber() noexcept {
    execution* const e = load_current();
    if (!e->home) return nullptr;
    auto* const f = static_cast<fiber_state*>(e);
    return f == &e->home->root ? nullptr : f;
}

}  // namespace xos::sched::detail
