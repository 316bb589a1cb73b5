// A worker: runs fibers, and sleeps when there are none.
#include <cxxabi.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "libxos/sched/core.hpp"
#include "libxos/sched/overflow.hpp"
#include "libxos/sched/sanitizers.hpp"
#include "libxos/sched/time.hpp"

namespace xos::sched::detail {

namespace {

std::int64_t steady_now() noexcept {
    return std::chrono::steady_clock::now().time_since_epoch().count();
}

void bind(const std::vector<unsigned>& cpus, unsigned index) noexcept {
    if (cpus.empty()) return;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpus[index % cpus.size()], &set);
    // A CPU that is not there, or not ours: as Linux likes.
    (void)pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

/// What the thread that runs a worker is meanwhile, and is no more afterwards.
class worker_thread {
  public:
    explicit worker_thread(worker& w, const scheduler_options& o) : before_(current_execution) {
        // Cancelling it would unwind whichever fiber happens to run.
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_);
        if (!o.cpus.empty()) pthread_getaffinity_np(pthread_self(), sizeof cpus_, &cpus_);
        bound_ = !o.cpus.empty();
        bind(o.cpus, w.index);
        w.exceptions = reinterpret_cast<exception_globals*>(abi::__cxa_get_globals());
        announce_root(w.root);
        current_execution = &w.root;
    }
    ~worker_thread() {
        current_execution = before_;
        if (bound_) pthread_setaffinity_np(pthread_self(), sizeof cpus_, &cpus_);
        pthread_setcancelstate(cancel_, nullptr);
    }
    worker_thread(const worker_thread&) = delete;
    worker_thread& operator=(const worker_thread&) = delete;

  private:
    signal_stack stack_;
    execution* before_;
    int cancel_ = 0;
    bool bound_ = false;
    cpu_set_t cpus_{};
};

bool unpark_if_parked(worker& w) noexcept {
    std::uint32_t parked = 1;
    if (!w.parked.compare_exchange_strong(parked, 0, std::memory_order_seq_cst)) return false;
    unpark(w);
    return true;
}

}  // namespace

void unpark(worker& w) noexcept {
    w.parked.store(0, std::memory_order_release);
    const worker_hooks& hooks = w.owner->options.hooks;
    if (hooks.unpark) return hooks.unpark(hooks.context, w.index);
    syscall(SYS_futex, &w.parked, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

std::int64_t now() {
    const execution* const e = load_current();
    if (e->home && e->home->owner->options.time == time_source::simulated)
        return e->home->owner->simulated_now;
    return steady_now();
}

void worker::post(fiber_state& f) noexcept {
    task* head = inbox.load(std::memory_order_relaxed);
    do f.next = head;
    while (!inbox.compare_exchange_weak(head, &f, std::memory_order_seq_cst,
                                        std::memory_order_relaxed));
    attention.store(1, std::memory_order_release);
    // idle_once() looks into the inbox after it has set `parked`, and this looks at `parked` after it has
    // filled the inbox: one of the two sees the other.
    if (parked.load(std::memory_order_seq_cst)) unpark_if_parked(*this);
}

void worker::take_inbox() noexcept {
    task* newest = inbox.exchange(nullptr, std::memory_order_acquire);
    task* oldest = nullptr;
    while (newest) {
        task* const t = newest;
        newest = t->next;
        t->next = oldest;
        oldest = t;
    }
    while (oldest) {
        auto& f = static_cast<fiber_state&>(*oldest);
        oldest = oldest->next;
        if (!f.arrived) {
            f.arrived = true;
            arrived++;
        }
        make_ready(f);
    }
}

void worker::add_to_policy(fiber_state& f) noexcept {
    if (!f.shareable) {
        incoming.push(f);
    } else if (next == next_task<work_stealing>) {
        static_cast<worker_of<work_stealing>*>(this)->policy.enqueue(f);
        wake_thief();
    } else {
        owner->policy.enqueue(*this, f);
        wake_thief();
    }
    attention.store(1, std::memory_order_relaxed);
}

void worker::wake_thief() noexcept {
    if (owner->idle.load(std::memory_order_relaxed)) owner->wake_idle();
}

void worker::poll() {
    const worker_hooks& hooks = owner->options.hooks;
    if (hooks.poll) hooks.poll(hooks.context, index);
    count.dispatches.store(
        count.dispatches.load(std::memory_order_relaxed) + polled_at - until_poll,
        std::memory_order_relaxed);
    polled_at = until_poll = poll_interval;
    if (timers.empty()) return;
    const std::int64_t time = now();
    // Timers are looked at every 10 to 40 us, whether fibers run for long or not.
    const std::int64_t passed = time - last_poll;
    last_poll = time;
    if (passed > 40'000 && poll_interval > 1)
        poll_interval /= 2;
    else if (passed < 10'000 && poll_interval < 256)
        poll_interval *= 2;
    polled_at = until_poll = poll_interval;
    while (wait_token* const token = timers.take_due(time)) {
        if (token->claim(wait_result::timed_out)) token->wake();
    }
}

void core::wake_idle() noexcept {
    for (unsigned i = 0; i < made.load(std::memory_order_acquire); i++) {
        worker* const w = workers[i];
        if (w && !w->retired.load(std::memory_order_relaxed) &&
            w->parked.load(std::memory_order_seq_cst) && unpark_if_parked(*w))
            return;
    }
}

bool core::quiescent() const noexcept {
    // What has ended is read first: both numbers only grow, so equal ones were equal in between.
    std::uint64_t ended = 0, begun = 0;
    for_each_worker(
        [&](const worker& w) { ended += w.count.finished.load(std::memory_order_acquire); });
    for_each_worker(
        [&](const worker& w) { begun += w.count.spawned.load(std::memory_order_acquire); });
    return ended == begun + outside_spawned.load(std::memory_order_acquire);
}

bool core::is_deadlock() const noexcept {
    if (options.deadlocks == deadlock_check::none) return false;
    if (quiet.load(std::memory_order_seq_cst) != threads.load(std::memory_order_seq_cst))
        return false;
    bool stuck = true;
    for_each_worker([&](const worker& w) {
        if (w.inbox.load(std::memory_order_acquire)) stuck = false;
        if (!w.gone.load(std::memory_order_acquire) &&
            w.idle_deadline.load(std::memory_order_acquire) != never)
            stuck = false;
    });
    return stuck;
}

bool core::may_leave(worker& w) noexcept {
    if (!w.retired.load(std::memory_order_relaxed) || w.index == 0) return false;
    std::lock_guard guard(membership);
    if (!w.retired.load(std::memory_order_relaxed)) return false;
    const std::uint64_t came = w.arrived + w.count.steals.load(std::memory_order_relaxed);
    const std::uint64_t went = w.count.finished.load(std::memory_order_relaxed) +
                               w.stolen_from.load(std::memory_order_acquire);
    if (came != went || w.inbox.load(std::memory_order_acquire)) return false;
    w.gone.store(true, std::memory_order_release);
    threads.fetch_sub(1, std::memory_order_seq_cst);
    return true;
}

void core::sleep_until_woken(worker& w) {
    const std::int64_t deadline = w.idle_deadline.load(std::memory_order_relaxed);
    if (options.time == time_source::simulated && deadline != never) {
        simulated_now = std::max(simulated_now, deadline);
        return;
    }
    if (options.hooks.park) return options.hooks.park(options.hooks.context, w.index, deadline);
    const timespec until = time_of(deadline);
    // An interruption or an early end is like a wake-up: the loop looks again.
    syscall(SYS_futex, &w.parked, FUTEX_WAIT_BITSET_PRIVATE, 1,
            deadline == never ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
}

/// Nothing is ready here, and nothing can be taken from others.
void core::idle_once(worker& w) {
    if (w.limbo) release(*std::exchange(w.limbo, nullptr));
    if (options.spin.count() > 0) {
        const std::int64_t end = std::min(steady_now() + options.spin.count(), w.timers.next());
        while (steady_now() < end) {
            for (int i = 0; i < 50; i++) {
                if (w.attention.load(std::memory_order_relaxed)) return;
                __builtin_ia32_pause();
            }
            if (done.load(std::memory_order_relaxed)) return;
            if (!w.retired.load(std::memory_order_relaxed) && steal(w)) return;
        }
    }
    w.idle_deadline.store(w.timers.next(), std::memory_order_relaxed);
    idle.fetch_add(1, std::memory_order_seq_cst);
    w.parked.store(1, std::memory_order_seq_cst);
    // The last look: whoever makes work after it sees that this one sleeps (`xos/sched/policy.hpp`).
    const bool found = w.inbox.load(std::memory_order_seq_cst) ||
                       (!w.retired.load(std::memory_order_relaxed) && steal(w));
    if (!found) {
        quiet.fetch_add(1, std::memory_order_seq_cst);
        if (quiescent()) {
            end_run();
        } else if (is_deadlock()) {
            stuck.store(true, std::memory_order_relaxed);
            end_run();
        } else if (!done.load(std::memory_order_seq_cst)) {
            counters::add(w.count.parks);
            sleep_until_woken(w);
        }
        quiet.fetch_sub(1, std::memory_order_seq_cst);
    }
    w.parked.store(0, std::memory_order_seq_cst);
    idle.fetch_sub(1, std::memory_order_seq_cst);
    w.attention.store(1, std::memory_order_relaxed);
    w.poll_soon();
}

/// Takes a fiber from another worker and makes it ready here. Its home changes when it runs: until
/// it has left its old worker, that one still looks at it.
bool core::steal(worker& thief) {
    const unsigned n = made.load(std::memory_order_acquire);
    for (unsigned i = 1; i < n; i++) {
        worker* const victim = workers[(thief.index + i) % n];
        if (!victim) continue;
        task* const t = policy.steal(*victim);
        if (!t) continue;
        auto& f = static_cast<fiber_state&>(*t);
        victim->stolen_from.fetch_add(1, std::memory_order_acq_rel);
        counters::add(thief.count.steals);
        thief.add(f);
        return true;
    }
    return false;
}

void core::end_run() noexcept {
    {
        // So that nobody spawns from outside what nobody would run.
        std::lock_guard guard(membership);
        if (!stuck.load(std::memory_order_relaxed) && !quiescent()) return;
        done.store(true, std::memory_order_seq_cst);
    }
    for_each_worker([](worker& w) { unpark(w); });
}

void core::run_worker(worker& w) {
    const worker_thread thread(w, options);
    while (true) {
        if (task* const t = w.next(w)) {
            switch_from_root(w, static_cast<fiber_state&>(*t));
            continue;
        }
        if (done.load(std::memory_order_seq_cst) || may_leave(w)) break;
        if (!w.retired.load(std::memory_order_relaxed) && steal(w)) continue;
        idle_once(w);
    }
    if (w.limbo) release(*std::exchange(w.limbo, nullptr));
}

}  // namespace xos::sched::detail
