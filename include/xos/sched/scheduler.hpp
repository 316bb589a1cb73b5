// A scheduler: threads that run fibers by a policy.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>
#include <xos/sched/detail/worker.hpp>
#include <xos/sched/fiber.hpp>
#include <xos/sched/policy.hpp>

namespace xos::sched {

/// What to do when no fiber can run, none waits for a time, and there are some left.
enum class deadlock_check : std::uint8_t {
    none,    ///< wait: a plain thread or a signal handler may still wake one
    report,  ///< nothing but fibers wakes fibers here: write who waits on what, and end run()
};

enum class time_source : std::uint8_t {
    steady,  ///< std::chrono::steady_clock
    /// With one worker: it stands still while fibers run, and goes to the next deadline when all
    /// wait. With sched::random_order the whole schedule follows from the seed.
    simulated,
};

/// Called on a worker, outside any fiber: the seam for an I/O engine. None may throw or wait for a
/// fiber.
struct worker_hooks {
    void* context = nullptr;
    /// Now and then, between two fibers: collect what has completed and resume() who waits for it.
    /// A safe point: no lock of the scheduler is held.
    void (*poll)(void* context, unsigned worker) = nullptr;
    /// In place of sleeping: until unpark(), or until that deadline (nanoseconds of steady_clock).
    /// It may return early. An unpark() that comes before is not lost.
    void (*park)(void* context, unsigned worker, std::int64_t deadline) = nullptr;
    void (*unpark)(void* context, unsigned worker) = nullptr;
};

struct scheduler_options {
    /// Threads that run fibers, the one that calls run() included. 1 to 1024.
    unsigned workers = 1;
    /// Address space of a stack, its guard page included; memory is used as it is touched. A
    /// multiple of 4096, at least 16 KiB.
    std::size_t stack_bytes = std::size_t{128} << 10;
    /// Fibers whose stacks are of one worker, at most. They take address space only.
    std::size_t max_fibers = std::size_t{1} << 20;
    /// Free stacks of a worker that keep their memory. That of others returns to Linux.
    std::size_t kept_stacks = 4096;
    /// How long an idle worker looks for work before it sleeps.
    std::chrono::nanoseconds spin{0};
    /// CPUs by number; worker i is bound to cpus[i % size]. Empty: as Linux likes.
    std::vector<unsigned> cpus = {};
    deadlock_check deadlocks = deadlock_check::none;
    time_source time = time_source::steady;
    /// For policies that draw lots.
    std::uint64_t seed = 1;
    worker_hooks hooks = {};
};

/// How stacks are guarded; the scheduler takes what the kernel has.
enum class stack_guard : std::uint8_t {
    marker,    ///< MADV_GUARD_INSTALL (Linux 6.13): a guard each, and all of them one mapping
    mapping,   ///< mprotect: a guard each, at two mappings each, up to a quarter of max_map_count
    unguarded  ///< the stack pointer is compared with the limit at each switch
};

struct scheduler_statistics {
    std::uint64_t dispatches = 0;  ///< choices of a fiber to run; up to some hundreds behind
    std::uint64_t spawned = 0, finished = 0;
    std::uint64_t steals = 0;  ///< fibers that a worker took from another
    std::uint64_t parks = 0;   ///< times that a worker went to sleep
};

/// What all schedulers have. `scheduler` is what to make.
class scheduler_base {
  public:
    scheduler_base(const scheduler_base&) = delete;
    scheduler_base& operator=(const scheduler_base&) = delete;

    /// Runs `main` as the first fiber, on the calling thread, which is worker 0 meanwhile; returns
    /// when all fibers have ended. Inside a cell the workers are inside, too. A worker's thread
    /// cannot be cancelled. Call on a plain thread.
    /// @return what `main` returns.
    /// @throws what `main` throws; std::system_error operation_not_permitted on a fiber,
    ///         operation_in_progress while it runs, resource_deadlock_would_occur as
    ///         scheduler_options::deadlocks says: the fibers that are left are then gone, without
    ///         destructors, and what they waited on must not be used again.
    template <class Main>
    auto run(Main&& main) {
        using result = std::invoke_result_t<Main&>;
        constexpr bool returns = !std::is_void_v<result>;
        std::optional<std::conditional_t<returns, result, std::monostate>> value;
        std::exception_ptr thrown;
        const spawn_options options{.name = "main", .worker = 0};
        run_first([&] {
            return &detail::spawn(core_.get(), options, [&] {
                try {
                    if constexpr (returns)
                        value.emplace(main());
                    else
                        main();
                } catch (...) {
                    thrown = std::current_exception();
                }
            });
        });
        if (thrown) std::rethrow_exception(std::move(thrown));
        if constexpr (returns) return std::move(*value);
    }

    /// A fiber of this scheduler, from any thread, while run() runs.
    /// @throws std::system_error as fiber's constructor; operation_not_permitted when it does not.
    template <class Callable>
    fiber spawn(Callable&& callable) {
        return spawn(spawn_options{}, std::forward<Callable>(callable));
    }
    template <class Callable>
    fiber spawn(const spawn_options& options, Callable&& callable) {
        return fiber(detail::spawn(core_.get(), options, std::forward<Callable>(callable)));
    }

    /// Changes how many workers there are: while run() runs, from any thread or fiber, or before.
    /// A worker that is too many takes no new fibers from others, and its thread ends when the last
    /// of its own has.
    /// @throws std::system_error invalid_argument unless 1 to 1024; what std::thread throws.
    void set_workers(unsigned n);
    [[nodiscard]] unsigned workers() const noexcept;

    /// Every fiber, a line each: number, name, state, and on what it waits. While fibers run it is
    /// a snapshot that may contradict itself.
    [[nodiscard]] std::string dump() const;
    [[nodiscard]] scheduler_statistics statistics() const noexcept;
    /// The weakest that a stack has had to take so far.
    [[nodiscard]] stack_guard guards() const noexcept;

  protected:
    scheduler_base(const scheduler_options& options, const detail::policy_functions& policy);
    ~scheduler_base();

  private:
    template <class Spawn>
    void run_first(Spawn spawn) {
        begin_run();
        detail::fiber_state* first;
        try {
            first = spawn();
        } catch (...) {
            abandon_run();
            throw;
        }
        finish_run(*first);
    }
    void begin_run();
    void abandon_run() noexcept;
    void finish_run(detail::fiber_state& first);

    std::unique_ptr<detail::core, void (*)(detail::core*)> core_;
};

/// Must outlive its fibers and their handles.
template <policy Policy>
class basic_scheduler : public scheduler_base {
  public:
    /// @throws std::system_error invalid_argument for an option out of range (the text says which),
    ///         not_enough_memory.
    explicit basic_scheduler(const scheduler_options& options = {})
        : scheduler_base(options, detail::functions_of<Policy>) {}
};

using scheduler = basic_scheduler<work_stealing>;

}  // namespace xos::sched

#endif  // C++20
