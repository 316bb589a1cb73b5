// The short way from one fiber to another. Not for use.
//
// It is inline because a processor predicts where a function returns to: what it predicts after a
// switch is where the other fiber would return to. A switch in a function of its own costs such a
// misprediction, which is more than the switch.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstring>
#include <xos/sched/detail/worker.hpp>

#if defined(__SANITIZE_ADDRESS__)
#define XOS_SCHED_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define XOS_SCHED_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define XOS_SCHED_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define XOS_SCHED_TSAN 1
#endif
#endif

namespace xos::sched::detail {

struct transfer {
    void* context;  ///< where the one that ran before goes on
    void* data;     ///< what it handed over
};

/// Boost.Context's. Its own header is not needed for it.
transfer jump_to_context(void* to, void* data) noexcept __asm__("jump_fcontext");

/// Whoever ran before now has a context.
[[gnu::always_inline]] inline void arrive(transfer from) noexcept {
    static_cast<std::atomic<void*>*>(from.data)->store(from.context, std::memory_order_release);
}

/// Whether neither a poll is due nor the policy has anything to say. Counts a dispatch if so.
[[gnu::always_inline]] inline bool undisturbed(worker& w) noexcept {
    if (w.attention.load(std::memory_order_relaxed)) [[unlikely]]
        return false;
    if (--w.until_poll == 0) [[unlikely]] {
        w.until_poll = 1;  // who asks the policy counts it
        return false;
    }
    return true;
}

/// Between two fibers that are `quick`, and so have their contexts; nobody waits for these.
[[gnu::always_inline]] inline void jump_quickly(worker& w, fiber_state& from,
                                                fiber_state& to) noexcept {
    exception_globals* const of_thread = w.exceptions;
    std::memcpy(&from.exceptions, of_thread, sizeof(exception_globals));
    std::memcpy(of_thread, &to.exceptions, sizeof(exception_globals));
    current_execution = &to;
    void* const target = to.context.load(std::memory_order_relaxed);
    to.context.store(nullptr, std::memory_order_relaxed);
    arrive(jump_to_context(target, &from.context));
}

/// Lets others run, in every case.
void yield_slowly() noexcept;

[[gnu::always_inline]] inline void yield_quickly() noexcept {
#if !defined(XOS_SCHED_ASAN) && !defined(XOS_SCHED_TSAN)
    execution& e = *current_execution;
    if (worker* const w = e.quick; w && undisturbed(*w)) [[likely]] {
        if (w->ready.empty()) return;
        auto& self = static_cast<fiber_state&>(e);
        jump_quickly(*w, self, static_cast<fiber_state&>(w->ready.exchange_front(self)));
        return;
    }
#endif
    yield_slowly();
}

}  // namespace xos::sched::detail

#endif  // C++20
