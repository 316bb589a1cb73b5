#include "libxos/sched/core.hpp"

#include <cstdio>

#include "libxos/sched/overflow.hpp"

namespace xos::sched {

namespace detail {

namespace {

[[noreturn]] void refuse(std::errc code, const char* what) {
    throw std::system_error(std::make_error_code(code), what);
}

const scheduler_options& checked(const scheduler_options& o) {
    if (o.workers < 1 || o.workers > most_workers)
        refuse(std::errc::invalid_argument, "scheduler_options::workers is not 1 to 1024");
    if (o.stack_bytes % 4096 || o.stack_bytes < 16384 || o.stack_bytes > std::size_t{1} << 30)
        refuse(std::errc::invalid_argument,
               "scheduler_options::stack_bytes is no multiple of 4096 from 16 KiB to 1 GiB");
    if (o.max_fibers < 64 || o.max_fibers > std::size_t{1} << 26)
        refuse(std::errc::invalid_argument, "scheduler_options::max_fibers is not 64 to 2^26");
    if (o.time == time_source::simulated && o.workers != 1)
        refuse(std::errc::invalid_argument, "simulated time needs one worker");
    return o;
}

}  // namespace

core::core(const scheduler_options& o, const policy_functions& p)
    : options(checked(o)),
      policy(p),
      wanted(o.workers),
      outside_stacks(o.stack_bytes, std::max<std::size_t>(o.max_fibers / 16, 64), o.kept_stacks) {
    make_worker(0);
}

core::~core() {
    for (unsigned i = 0; i < made.load(std::memory_order_relaxed); i++) {
        if (!workers[i]) continue;
        delete workers[i]->stacks;
        policy.destroy(workers[i]);
    }
}

worker& core::make_worker(unsigned index) {
    if (index < made.load(std::memory_order_relaxed)) return *workers[index];
    auto stacks = std::make_unique<stack_region>(options.stack_bytes, options.max_fibers,
                                                 options.kept_stacks);
    worker& w = *policy.create({.index = index, .seed = options.seed});
    w.owner = this;
    w.index = index;
    w.next = policy.next;
    w.stacks = stacks.release();
    w.root.home = &w;
    workers[index] = &w;
    made.store(index + 1, std::memory_order_release);
    return w;
}

void core::start_thread(worker& w) {
    if (thread_of[w.index].joinable()) thread_of[w.index].join();
    threads.fetch_add(1, std::memory_order_seq_cst);
    w.gone.store(false, std::memory_order_relaxed);
    try {
        thread_of[w.index] = std::thread([this, &w] { run_worker(w); });
    } catch (...) {
        w.gone.store(true, std::memory_order_relaxed);
        threads.fetch_sub(1, std::memory_order_seq_cst);
        throw;
    }
}

void core::begin_run() {
    if (current_fiber()) refuse(std::errc::operation_not_permitted, "run() was called on a fiber");
    if (running.exchange(true, std::memory_order_acq_rel))
        refuse(std::errc::operation_in_progress, "run() runs already");
    watch_overflows();
    watch_forks();
    done.store(false, std::memory_order_relaxed);
    stuck.store(false, std::memory_order_relaxed);
    worker& first = *workers[0];
    first.gone.store(false, std::memory_order_relaxed);
    threads.store(1, std::memory_order_seq_cst);
}

void core::abandon_run() noexcept {
    workers[0]->gone.store(true, std::memory_order_relaxed);
    running.store(false, std::memory_order_release);
}

void core::finish_run(fiber_state& first) {
    std::exception_ptr failed;
    try {
        set_workers(wanted.load(std::memory_order_relaxed));
    } catch (...) {
        failed = std::current_exception();  // after what has begun has ended
    }
    run_worker(*workers[0]);
    for (auto& thread : thread_of) {
        if (thread.joinable()) thread.join();
    }
    for_each_worker([](worker& w) { w.gone.store(true, std::memory_order_relaxed); });
    const bool ended = first.joiner.load(std::memory_order_acquire) == finished;
    const bool all_wait = stuck.load(std::memory_order_relaxed);
    std::string report;
    if (all_wait) {
        report = "xos::sched: deadlock: no fiber can run\n" + dump(true);
        forget_fibers();
    }
    if (ended || all_wait) release(first);
    running.store(false, std::memory_order_release);
    if (all_wait) {
        std::fputs(report.c_str(), stderr);
        throw std::system_error(std::make_error_code(std::errc::resource_deadlock_would_occur),
                                "all fibers wait for each other");
    }
    if (!ended)
        refuse(std::errc::operation_canceled, "this is the child of a fork on another fiber");
    if (failed) std::rethrow_exception(failed);
}

void core::set_workers(unsigned n) {
    if (n < 1 || n > most_workers || (n != 1 && options.time == time_source::simulated))
        refuse(std::errc::invalid_argument, "the number of workers is not 1 to 1024");
    std::lock_guard guard(membership);
    wanted.store(n, std::memory_order_release);
    if (!running.load(std::memory_order_acquire) || done.load(std::memory_order_acquire)) return;
    for (unsigned i = 0; i < made.load(std::memory_order_relaxed); i++) {
        if (!workers[i]) continue;
        workers[i]->retired.store(i >= n, std::memory_order_relaxed);
        if (i >= n) unpark(*workers[i]);
    }
    for (unsigned i = 1; i < n; i++) {
        worker& w = make_worker(i);
        if (w.gone.load(std::memory_order_acquire)) start_thread(w);
    }
}

fiber_state& core::take_outside() {
    std::lock_guard guard(outside_lock);
    fiber_state& f = outside_stacks.take();
    f.id = ++last_outside_id << 10 | 1023;
    return f;
}

void core::place(fiber_state& f, int index, worker* here) {
    std::lock_guard guard(membership);
    const unsigned n = wanted.load(std::memory_order_relaxed);
    if (!running.load(std::memory_order_acquire) || done.load(std::memory_order_relaxed))
        refuse(std::errc::operation_not_permitted, "the scheduler does not run");
    if (index != any_worker && (index < 0 || static_cast<unsigned>(index) >= n))
        refuse(std::errc::invalid_argument, "spawn_options::worker is no worker");
    const unsigned to = index == any_worker ? next_outside++ % n : static_cast<unsigned>(index);
    // The threads of a run may not have begun yet.
    for (unsigned i = made.load(std::memory_order_relaxed); i <= to; i++) make_worker(i);
    worker& home = *workers[to];
    f.home = &home;
    if (here)
        here->count.spawned.store(here->count.spawned.load(std::memory_order_relaxed) + 1,
                                  std::memory_order_release);
    else
        outside_spawned.fetch_add(1, std::memory_order_acq_rel);
    home.post(f);
}

stack_guard core::guards() const noexcept {
    stack_guard weakest = stack_guard::marker;
    for_each_region([&](const stack_region& r) { weakest = std::max(weakest, r.guard()); });
    return weakest;
}

/// What is left after a deadlock never runs again. Who still has a handle may let go of it.
void core::forget_fibers() noexcept {
    for_each_region([](const stack_region& r) {
        for (std::size_t i = 0; i < r.slots(); i++) {
            fiber_state& f = r.state_of(i);
            if (!f.alive.load(std::memory_order_relaxed)) continue;
            if (f.joiner.exchange(finished, std::memory_order_acq_rel) == detached) release(f);
        }
    });
    for_each_worker([](worker& w) {
        w.timers.clear();
        w.limbo = nullptr;
        w.count.finished.store(w.count.spawned.load());
    });
    outside_spawned.store(0);
}

}  // namespace detail

scheduler_base::scheduler_base(const scheduler_options& options,
                               const detail::policy_functions& policy)
    : core_(new detail::core(options, policy), [](detail::core* c) { delete c; }) {}

scheduler_base::~scheduler_base() = default;

void scheduler_base::begin_run() {
    core_->begin_run();
}

void scheduler_base::abandon_run() noexcept {
    core_->abandon_run();
}

void scheduler_base::finish_run(detail::fiber_state& first) {
    core_->finish_run(first);
}

void scheduler_base::set_workers(unsigned n) {
    core_->set_workers(n);
}

unsigned scheduler_base::workers() const noexcept {
    return core_->wanted.load(std::memory_order_relaxed);
}

std::string scheduler_base::dump() const {
    return core_->dump();
}

scheduler_statistics scheduler_base::statistics() const noexcept {
    scheduler_statistics sum;
    core_->for_each_worker([&](const detail::worker& w) {
        sum.dispatches += w.count.dispatches.load(std::memory_order_relaxed);
        sum.spawned += w.count.spawned.load(std::memory_order_relaxed);
        sum.finished += w.count.finished.load(std::memory_order_relaxed);
        sum.steals += w.count.steals.load(std::memory_order_relaxed);
        sum.parks += w.count.parks.load(std::memory_order_relaxed);
    });
    sum.spawned += core_->outside_spawned.load(std::memory_order_relaxed);
    return sum;
}

stack_guard scheduler_base::guards() const noexcept {
    return core_->guards();
}

}  // namespace xos::sched
