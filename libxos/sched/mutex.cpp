#include <cstring>
#include <exception>
#include <system_error>
#include <xos/sched/mutex.hpp>

#include "libxos/sched/core.hpp"

namespace xos::sched {

namespace {

constexpr const char* a_mutex = "a mutex";
constexpr std::uintptr_t somebody_waits = 1;

[[noreturn]] void refuse_own() {
    throw std::system_error(std::make_error_code(std::errc::resource_deadlock_would_occur),
                            "the caller holds the mutex already");
}

std::uintptr_t number(const detail::execution* e) noexcept {
    return reinterpret_cast<std::uintptr_t>(e);
}

}  // namespace

const void* detail::holder_of(const char* what, const void* on) noexcept {
    if (what != a_mutex) return nullptr;
    const auto* const m = static_cast<const mutex*>(on);
    auto* const holder =
        reinterpret_cast<execution*>(m->state_.load(std::memory_order_relaxed) & ~somebody_waits);
    return holder && holder->home ? static_cast<fiber_state*>(holder) : nullptr;
}

wait_result mutex::lock_slowly(const wait_limits* limits) {
    const std::uintptr_t me = self();
    detail::wait_token token;
    token.contended = limits && detail::limited(*limits);
    detail::wait_node node(token);
    {
        std::lock_guard guard(lock_);
        std::uintptr_t state = state_.load(std::memory_order_relaxed);
        while (true) {
            if ((state & ~somebody_waits) == me) refuse_own();
            if (state == 0) {
                if (state_.compare_exchange_weak(state, me, std::memory_order_acquire,
                                                 std::memory_order_relaxed))
                    return wait_result::ready;
            } else if (state_.compare_exchange_weak(state, state | somebody_waits,
                                                    std::memory_order_relaxed)) {
                break;
            }
        }
        waiters_.push(node);
    }
    const wait_result r = detail::wait(token, limits, a_mutex, this);
    if (r == wait_result::ready) {
        // Whoever had it before wrote our name; this orders what it did before that.
        (void)state_.load(std::memory_order_acquire);
        return r;
    }
    std::lock_guard guard(lock_);
    waiters_.remove(node);
    if (waiters_.empty()) state_.fetch_and(~somebody_waits, std::memory_order_relaxed);
    return r;
}

void mutex::unlock_slowly() noexcept {
    detail::wait_token* next = nullptr;
    {
        std::lock_guard guard(lock_);
        if ((state_.load(std::memory_order_relaxed) & ~somebody_waits) != self()) std::terminate();
        next = waiters_.claim_first();
        const std::uintptr_t rest = waiters_.empty() ? 0 : somebody_waits;
        state_.store(next ? number(next->who) | rest : 0, std::memory_order_release);
    }
    if (next) next->wake();
}

wait_result local_mutex::lock_slowly(const wait_limits* limits) {
    if (holder_ == detail::load_current()) refuse_own();
    detail::wait_token token;
    token.contended = limits && detail::limited(*limits);
    detail::wait_node node(token);
    waiters_.push(node);
    const wait_result r = detail::wait(token, limits, "a local mutex", this);
    if (r != wait_result::ready) waiters_.remove(node);
    return r;
}

void local_mutex::hand_over() noexcept {
    detail::wait_token* const next = waiters_.claim_first();
    holder_ = next ? next->who : nullptr;
    if (next) next->wake();
}

bool shared_mutex::free_for(kind k) const noexcept {
    return !written_ && (k == reader || readers_ == 0);
}

bool shared_mutex::take(kind k) noexcept {
    std::lock_guard guard(lock_);
    if (!waiters_.empty() || !free_for(k)) return false;
    if (k == writer)
        written_ = true;
    else
        readers_++;
    return true;
}

void shared_mutex::hand_over(detail::wake_list& woken) noexcept {
    while (!waiters_.empty() && free_for(static_cast<kind>(waiters_.front()->kind))) {
        const auto k = static_cast<kind>(waiters_.front()->kind);
        detail::wait_token* const next = waiters_.claim_front();
        if (!next) continue;
        if (k == writer)
            written_ = true;
        else
            readers_++;
        woken.add(*next);
    }
}

wait_result shared_mutex::acquire(kind k, const wait_limits* limits) {
    if (take(k)) return wait_result::ready;
    detail::wait_token token;
    token.contended = limits && detail::limited(*limits);
    detail::wait_node node(token);
    node.kind = k;
    detail::wake_list woken;
    {
        std::lock_guard guard(lock_);
        waiters_.push(node);
        hand_over(woken);  // it may be free by now
    }
    woken.wake_all();
    const wait_result r = detail::wait(
        token, limits, k == writer ? "a shared mutex" : "a shared mutex, to read", this);
    if (r == wait_result::ready) return r;
    {
        std::lock_guard guard(lock_);
        waiters_.remove(node);
        hand_over(woken);  // those behind may have waited for this one only
    }
    woken.wake_all();
    return r;
}

void shared_mutex::unlock() noexcept {
    detail::wake_list woken;
    {
        std::lock_guard guard(lock_);
        written_ = false;
        hand_over(woken);
    }
    woken.wake_all();
}

void shared_mutex::unlock_shared() noexcept {
    detail::wake_list woken;
    {
        std::lock_guard guard(lock_);
        readers_--;
        hand_over(woken);
    }
    woken.wake_all();
}

}  // namespace xos::sched
