// The child of a fork has one thread, so it has one worker; and one fiber, that which forked.
#include <pthread.h>

#include "libxos/sched/core.hpp"

namespace xos::sched::detail {

namespace {

void in_child() {
    if (fiber_state* const self = current_fiber())
        self->home->owner->begin_child(*self->home, *self);
}

}  // namespace

void watch_forks() {
    static const int registered = pthread_atfork(nullptr, nullptr, in_child);
    (void)registered;
}

void core::begin_child(worker& mine, fiber_state&) {
    for_each_worker([&](worker& w) {
        w.ready.take_all();
        w.incoming.take_all();
        w.inbox.store(nullptr, std::memory_order_relaxed);
        w.timers.clear();
        w.limbo = nullptr;
        policy.reset(w, {.index = w.index, .seed = options.seed});
        w.count.spawned.store(&w == &mine, std::memory_order_relaxed);
        w.count.finished.store(0, std::memory_order_relaxed);
        w.count.steals.store(0, std::memory_order_relaxed);
        w.stolen_from.store(0, std::memory_order_relaxed);
        w.arrived = &w == &mine;
        w.parked.store(0, std::memory_order_relaxed);
        w.gone.store(&w != &mine, std::memory_order_relaxed);
        // No thread runs the others, and this one stays.
        w.retired.store(&w != &mine, std::memory_order_relaxed);
        if (&w != &mine && thread_of[w.index].joinable()) thread_of[w.index].detach();
    });
    outside_spawned.store(0, std::memory_order_relaxed);
    std::construct_at(&membership);
    std::construct_at(&outside_lock);
    threads.store(1, std::memory_order_relaxed);
    idle.store(0, std::memory_order_relaxed);
    quiet.store(0, std::memory_order_relaxed);
}

}  // namespace xos::sched::detail
