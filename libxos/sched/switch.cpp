// Switching: the few instructions that everything else waits for.
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <boost/context/detail/fcontext.hpp>
#include <cerrno>
#include <cstring>

#include "libxos/sched/core.hpp"
#include "libxos/sched/overflow.hpp"
#include "libxos/sched/sanitizers.hpp"
#include "libxos/sched/time.hpp"

namespace xos::sched::detail {

namespace context = boost::context::detail;

constinit execution plain_thread;
__thread execution* current_execution = &plain_thread;

namespace {

/// The policy's choice; the worker's own loop when there is none. The default policy is not called
/// by pointer.
[[gnu::always_inline]] inline fiber_state& choose(worker& w) noexcept {
    task* const t =
        w.next == next_task<work_stealing> ? next_of_policy<work_stealing>(w) : w.next(w);
    return t ? *static_cast<fiber_state*>(t) : w.root;
}

/// A fiber that was taken from another worker may still be on its way out there.
[[gnu::noinline]] void* wait_for_context(const fiber_state& f) noexcept {
    for (int i = 0;; i++) {
        if (void* const c = f.context.load(std::memory_order_acquire)) return c;
        if (i < 100)
            __builtin_ia32_pause();
        else
            sched_yield();
    }
}

void switch_to(worker& w, fiber_state& from, fiber_state& to, bool ended = false) noexcept {
    if (static_cast<char*>(__builtin_frame_address(0)) < from.stack_low) [[unlikely]]
        report_overflow(from);
    void* target = to.context.load(std::memory_order_acquire);
    if (!target) [[unlikely]]
        target = wait_for_context(to);
    to.home = &w;
    to.context.store(nullptr, std::memory_order_relaxed);
    std::memcpy(&from.exceptions, w.exceptions, sizeof(exception_globals));
    std::memcpy(w.exceptions, &to.exceptions, sizeof(exception_globals));
    current_execution = &to;
    before_switch(ended ? nullptr : &from, to);
    const transfer back = jump_to_context(target, &from.context);
    after_switch(from);
    arrive(back);
}

/// Any fiber, by the policy.
[[gnu::noinline]] void switch_slowly(worker& w, fiber_state& self) noexcept {
    fiber_state& to = choose(w);
    if (&to != &self) switch_to(w, self, to);
}

/// To the next fiber in order, if the policy need not be asked.
[[gnu::always_inline]] inline bool switch_quickly([[maybe_unused]] worker& w,
                                                  [[maybe_unused]] fiber_state& self) noexcept {
#if !defined(XOS_SCHED_ASAN) && !defined(XOS_SCHED_TSAN)
    if (self.quick && !w.ready.empty() && undisturbed(w)) {
        auto& to = static_cast<fiber_state&>(*w.ready.pop());
        if (&to != &self) jump_quickly(w, self, to);
        return true;
    }
#endif
    return false;
}

/// The calling fiber stops here; something else has seen to it that it goes on. Other fibers, or the
/// worker's own loop, run meanwhile.
[[gnu::always_inline]] inline void switch_away(worker& w, fiber_state& self) noexcept {
    if (!switch_quickly(w, self)) switch_slowly(w, self);
}

[[noreturn]] void end_fiber(fiber_state& self) noexcept {
    const std::uintptr_t joiner = self.joiner.exchange(finished, std::memory_order_acq_rel);
    worker& w = *self.home;
    if (joiner == detached) {
        if (self.thrown) report_unhandled(self);
        // The one before has long left its stack.
        if (w.limbo) release(*w.limbo);
        w.limbo = &self;
    } else if (joiner != running) {
        auto& token = *reinterpret_cast<wait_token*>(joiner);
        if (token.claim(wait_result::ready)) token.wake();
    }
    w.count.finished.store(w.count.finished.load(std::memory_order_relaxed) + 1,
                           std::memory_order_release);
    if (!switch_quickly(w, self)) switch_to(w, self, choose(w), true);
    __builtin_unreachable();
}

void enter_fiber(context::transfer_t from) noexcept {
    fiber_state& self = static_cast<fiber_state&>(*load_current());
    after_switch(self);
    arrive({from.fctx, from.data});
    self.shareable = self.migratable;
    if (!self.migratable && self.home->in_order && self.guarded) self.quick = self.home;
    try {
        self.body(self);
    } catch (...) {
        self.thrown = std::current_exception();
    }
    destroy_locals(self);
    end_fiber(self);
}

void sleep_plain(wait_token& token, std::int64_t deadline) noexcept {
    const timespec until = time_of(deadline);
    while (token.awake.load(std::memory_order_acquire) == 0) {
        const long r =
            syscall(SYS_futex, &token.awake, FUTEX_WAIT_BITSET_PRIVATE, 0,
                    deadline == never ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
        if (r != 0 && errno == ETIMEDOUT && token.claim(wait_result::timed_out)) return;
        // A claim that came first is followed by a wake() soon.
        if (r != 0 && errno == ETIMEDOUT) deadline = never;
    }
}

}  // namespace

void prepare_context(fiber_state& f) noexcept {
    char* const top = f.callable;
    f.context.store(
        context::make_fcontext(top, static_cast<std::size_t>(top - f.stack_low), enter_fiber),
        std::memory_order_relaxed);
}

void yield_slowly() noexcept {
    execution& e = *load_current();
    if (!e.home) {
        sched_yield();
        return;
    }
    auto& self = static_cast<fiber_state&>(e);
    worker& w = *e.home;
    w.add(self);  // from now on another worker may take it
    switch_slowly(w, self);
}

void switch_from_root(worker& w, fiber_state& to) noexcept {
    switch_to(w, w.root, to);
}

void resume(fiber_state& f) noexcept {
    worker& home = *f.home;
    const execution* const e = load_current();
    if (e->home == &home)
        home.make_ready(f);
    else
        home.post(f);
}

void wait_token::wake_slowly() noexcept {
    if (fiber) return resume(*fiber);
    awake.store(1, std::memory_order_release);
    // The thread may be gone by now; Linux then finds nobody.
    syscall(SYS_futex, &awake, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

namespace {

[[gnu::noinline]] wait_result wait_within(wait_token& token, const wait_limits* limits,
                                          const char* what, const void* on) {
    const auto stop = [&token] {
        if (token.claim(wait_result::stopped)) token.wake();
    };
    std::optional<std::stop_callback<decltype(stop)>> callback;
    const bool may_stop = limits && limits->stop.stop_possible();
    const std::int64_t deadline = limits ? limits->deadline : never;
    if (fiber_state* const f = token.fiber) {
        worker& w = *f->home;
        if (deadline != never) {
            w.timers.arm(*f, deadline, token, ++w.last_timer << 10 | w.index);
            w.poll_soon();
        }
        f->waits_on.store(on, std::memory_order_relaxed);
        f->waits_for.store(what, std::memory_order_relaxed);
        // Once it is called, another worker may take the fiber.
        if (may_stop) callback.emplace(limits->stop, stop);
        switch_away(w, *f);
        f->waits_for.store(nullptr, std::memory_order_relaxed);
    } else {
        if (may_stop) callback.emplace(limits->stop, stop);
        sleep_plain(token, deadline);
    }
    return static_cast<wait_result>(token.state.load(std::memory_order_acquire));
}

}  // namespace

wait_result wait(wait_token& token, const wait_limits* limits, const char* what, const void* on) {
    fiber_state* const f = token.fiber;
    if (limits || !f) return wait_within(token, limits, what, on);
    f->waits_on.store(on, std::memory_order_relaxed);
    f->waits_for.store(what, std::memory_order_relaxed);
    switch_away(*f->home, *f);
    f->waits_for.store(nullptr, std::memory_order_relaxed);
    return static_cast<wait_result>(token.state.load(std::memory_order_acquire));
}

}  // namespace xos::sched::detail
