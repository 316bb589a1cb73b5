// How fibers and plain threads wait, and how anything wakes them: what locks and channels are made
// of, and the seam for whatever else completes later (an I/O engine, a message from another cell).
//
//     suspension s;                 // on the stack of who is to wait
//     engine.submit(request, &s);   // from now on any thread may call s.resume(), once
//     s.wait();                     // other fibers run; a plain thread sleeps
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <atomic>
#include <chrono>
#include <cstdint>
#include <stop_token>
#include <xos/sched/detail/worker.hpp>

namespace xos::sched {

/// How a wait that may be given up has ended.
enum class wait_result : std::uint8_t {
    ready,      ///< what was waited for has happened
    timed_out,  ///< the deadline came first
    stopped,    ///< stop was requested first
};

/// When to give up waiting. Each function that may wait long has a form with this.
///
///     queue.receive({.deadline = sched::deadline_after(10ms), .stop = this_fiber::stop_token()});
struct wait_limits {
    /// Nanoseconds of std::chrono::steady_clock; deadline_after() makes one.
    std::int64_t deadline = detail::never;
    std::stop_token stop = {};
};

namespace detail {

/// Nanoseconds of steady_clock, or of the virtual time of the worker that this is called on.
std::int64_t now();

template <class Rep, class Period>
std::int64_t saturated_nanoseconds(const std::chrono::duration<Rep, Period>& d) {
    using wide = std::chrono::duration<double, std::nano>;
    const double n = std::chrono::duration_cast<wide>(d).count();
    if (!(n < 9.2e18)) return never;
    if (n < -9.2e18) return -never;
    if constexpr (std::chrono::treat_as_floating_point_v<Rep>)
        return static_cast<std::int64_t>(n);
    else
        return std::chrono::ceil<std::chrono::nanoseconds>(d).count();
}

}  // namespace detail

/// `d` from now. A duration that is too long for the clock means never.
template <class Rep, class Period>
[[nodiscard]] std::int64_t deadline_after(const std::chrono::duration<Rep, Period>& d) {
    const std::int64_t length = detail::saturated_nanoseconds(d);
    std::int64_t sum = 0;
    if (length == detail::never || __builtin_add_overflow(detail::now(), length, &sum))
        return length < 0 ? 0 : detail::never;
    return sum;
}

/// That time. A time of another clock than steady_clock is taken as it stands to that clock now:
/// when the clock is set later, the deadline does not move.
template <class Clock, class Duration>
[[nodiscard]] std::int64_t deadline_at(const std::chrono::time_point<Clock, Duration>& t) {
    if constexpr (std::is_same_v<Clock, std::chrono::steady_clock>)
        return detail::saturated_nanoseconds(t.time_since_epoch());
    else
        return deadline_after(t - Clock::now());
}

namespace detail {

/// One wait of a fiber or a thread. Several may want to end it; who claims it may.
struct wait_token {
    static constexpr std::uint32_t waiting = ~std::uint32_t{0};

    wait_token() noexcept {
        who = &current();
        fiber = who->home ? static_cast<fiber_state*>(who) : nullptr;
    }
    /// Claims are made under one lock unless `contended`.
    bool claim(wait_result r) noexcept {
        if (!contended) [[likely]] {
            state.store(static_cast<std::uint32_t>(r), std::memory_order_release);
            return true;
        }
        std::uint32_t expected = waiting;
        return state.compare_exchange_strong(expected, static_cast<std::uint32_t>(r),
                                             std::memory_order_acq_rel);
    }
    /// By whoever claimed it, once. The token may be gone afterwards.
    void wake() noexcept {
        if (fiber) [[likely]] {
            // The caller's worker has it, and no timer: its place is known.
            worker* const w = fiber->quick;
            if (w && w == load_current()->home && fiber->timer.load(std::memory_order_relaxed) == 0)
                [[likely]] {
                w->ready.push(*fiber);
                return;
            }
        }
        wake_slowly();
    }

    std::atomic<std::uint32_t> state{waiting};
    std::atomic<std::uint32_t> awake{0};  ///< a plain thread sleeps on this
    execution* who;
    fiber_state* fiber;  ///< null: a plain thread
    bool contended = false;
    void* fired = nullptr;  ///< the wait_node by which it was claimed

  private:
    void wake_slowly() noexcept;
};

/// Until the token is claimed. The object must be able to claim it by now, and `contended` must
/// be set if there are limits.
wait_result wait(wait_token& token, const wait_limits* limits, const char* what, const void* on);

/// Whether these limits can ever end a wait.
inline bool limited(const wait_limits& l) noexcept {
    return l.deadline != never || l.stop.stop_possible();
}

/// A place in the queue of one object.
struct wait_node {
    explicit wait_node(wait_token& t) noexcept : token(&t) {}
    wait_token* token;
    wait_node* next = nullptr;
    wait_node* previous = nullptr;
    bool linked = false;
    std::uintptr_t kind = 0;  ///< what the object wants to know
    void* slot = nullptr;     ///< for a value that is handed over
};

/// Who waits for one object, in order of arrival. Under the object's lock.
class wait_list {
  public:
    [[nodiscard]] bool empty() const noexcept { return !first_; }
    [[nodiscard]] wait_node* front() const noexcept { return first_; }
    void push(wait_node& n) noexcept {
        n.next = nullptr;
        n.previous = last_;
        (last_ ? last_->next : first_) = &n;
        last_ = &n;
        n.linked = true;
    }
    void remove(wait_node& n) noexcept {
        if (!n.linked) return;
        (n.previous ? n.previous->next : first_) = n.next;
        (n.next ? n.next->previous : last_) = n.previous;
        n.linked = false;
    }
    /// Takes the first whose wait has not ended otherwise, and ends it. The caller wakes it, after
    /// it has given up the lock.
    wait_token* claim_first() noexcept {
        while (wait_node* n = first_) {
            remove(*n);
            if (!n->token->claim(wait_result::ready)) continue;
            n->token->fired = n;
            return n->token;
        }
        return nullptr;
    }
    /// Takes the first, and ends its wait unless it has ended otherwise.
    wait_token* claim_front() noexcept {
        wait_node& n = *first_;
        remove(n);
        if (!n.token->claim(wait_result::ready)) return nullptr;
        n.token->fired = &n;
        return n.token;
    }
    /// The node by which it was claimed.
    static wait_node& node_of(const wait_token& t) noexcept {
        return *static_cast<wait_node*>(t.fired);
    }

  private:
    wait_node* first_ = nullptr;
    wait_node* last_ = nullptr;
};

/// Those that were claimed under a lock, to be woken when it has been given up.
class wake_list {
  public:
    wake_list() = default;
    wake_list(const wake_list&) = delete;
    wake_list& operator=(const wake_list&) = delete;
    void add(wait_token& t) noexcept {
        wait_node& n = wait_list::node_of(t);
        n.next = nullptr;
        (last_ ? last_->next : first_) = &n;
        last_ = &n;
    }
    void wake_all() noexcept {
        while (wait_node* const n = first_) {
            first_ = n->next;  // the node goes with its wait
            n->token->wake();
        }
        last_ = nullptr;
    }

  private:
    wait_node* first_ = nullptr;
    wait_node* last_ = nullptr;
};

}  // namespace detail

/// One wait that anything may end. On the stack of who waits.
class suspension {
  public:
    suspension() noexcept { token_.contended = true; }
    suspension(const suspension&) = delete;
    suspension& operator=(const suspension&) = delete;

    /// Ends the wait: on any thread, in or out of a fiber, before or after wait() begins. Exactly
    /// one call, whether or not the wait has timed out; the object must live until then, so who
    /// gives up must first take the request back.
    /// @return false if the wait had been given up before.
    bool resume() noexcept {
        if (!token_.claim(wait_result::ready)) return false;
        token_.wake();
        return true;
    }
    /// Waits until resume(). Called once.
    void wait(const char* what = "a suspension") {
        (void)detail::wait(token_, nullptr, what, this);
    }
    wait_result wait(const wait_limits& limits, const char* what = "a suspension") {
        return detail::wait(token_, &limits, what, this);
    }

  private:
    detail::wait_token token_;
};

}  // namespace xos::sched

#endif  // C++20
