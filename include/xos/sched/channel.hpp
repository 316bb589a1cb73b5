// Channels: bounded queues between any number of fibers and plain threads, and select.
//
//     sched::channel<int> numbers(16);
//     fiber producer([&] { for (int i = 0; i < 100; i++) numbers.send(i); numbers.close(); });
//     while (std::optional<int> n = numbers.receive()) use(*n);
//
//     const auto which = sched::select({.deadline = sched::deadline_after(1s)},
//         sched::on_receive(numbers, [](std::optional<int> n) { ... }),   // empty: it is closed
//         sched::on_send(results, 42, [](bool sent) { ... }));            // false: it is closed
//     if (!which) gave_up();
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <tuple>
#include <utility>
#include <xos/sched/wait.hpp>

namespace xos::sched {

namespace detail {

/// A way in which select may go on, with its types forgotten.
class select_case {
  public:
    explicit select_case(spin_lock& l) noexcept : lock(&l) {}
    select_case(const select_case&) = delete;
    select_case& operator=(const select_case&) = delete;
    virtual bool try_now() = 0;  ///< under the lock
    virtual void enlist(wait_token& t) = 0;
    virtual void delist() = 0;
    virtual void finish() = 0;  ///< without locks: calls the handler
    /// Whoever must go on because of it.
    wait_token* partner = nullptr;
    std::optional<wait_node> node;
    spin_lock* lock;

  protected:
    ~select_case() = default;
};

/// @return which case has happened; `count` if none.
std::size_t select(select_case* const* cases, std::size_t count, const wait_limits* limits,
                   wait_result* result);

}  // namespace detail

/// A queue of at most `capacity` values. A value that somebody waits for is handed over directly,
/// and only they are woken; senders and receivers are served in order of arrival.
template <class T>
class channel {
  public:
    /// @throws std::system_error invalid_argument for 0.
    explicit channel(std::size_t capacity) : capacity_(capacity) {
        if (capacity == 0)
            throw std::system_error(std::make_error_code(std::errc::invalid_argument),
                                    "a channel has room for one value at least");
        values_ = std::allocator<T>().allocate(capacity);
    }
    ~channel() {
        while (size_) (void)take();
        std::allocator<T>().deallocate(values_, capacity_);
    }
    channel(const channel&) = delete;
    channel& operator=(const channel&) = delete;

    /// Waits for room.
    /// @return false when it is closed: the value was not sent.
    bool send(T value) { return put(value, nullptr) == outcome::done; }
    /// Gives up when there is no room, or at the limits.
    /// @return whether it was sent; if not, `value` is as it was.
    [[nodiscard]] bool try_send(T& value) {
        std::unique_lock guard(lock_);
        detail::wait_token* partner = nullptr;
        const bool sent = !closed_ && put_now(value, partner);
        guard.unlock();
        if (partner) partner->wake();
        return sent;
    }
    [[nodiscard]] bool try_send(T& value, const wait_limits& limits) {
        return put(value, &limits) == outcome::done;
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_send_for(T& value, const std::chrono::duration<Rep, Period>& d) {
        return try_send(value, {.deadline = deadline_after(d)});
    }

    /// Waits for a value.
    /// @return nothing when it is closed and empty.
    std::optional<T> receive() { return get(nullptr); }
    /// @return nothing also when there is none now, or none before the limits.
    [[nodiscard]] std::optional<T> try_receive() {
        std::unique_lock guard(lock_);
        detail::wait_token* partner = nullptr;
        std::optional<T> value = get_now(partner);
        guard.unlock();
        if (partner) partner->wake();
        return value;
    }
    [[nodiscard]] std::optional<T> try_receive(const wait_limits& limits) { return get(&limits); }
    template <class Rep, class Period>
    [[nodiscard]] std::optional<T> try_receive_for(const std::chrono::duration<Rep, Period>& d) {
        return try_receive({.deadline = deadline_after(d)});
    }

    /// No value can be sent any more. What is in it can still be received. Who waits goes on.
    void close() noexcept {
        detail::wake_list woken;
        {
            std::lock_guard guard(lock_);
            closed_ = true;
            // A sender waits for room, and a receiver waits while there is nothing: neither comes.
            for (detail::wait_list* list : {&senders_, &receivers_}) {
                while (detail::wait_token* const t = list->claim_first()) {
                    detail::wait_list::node_of(*t).kind = closed_meanwhile;
                    woken.add(*t);
                }
            }
        }
        woken.wake_all();
    }
    [[nodiscard]] bool closed() const noexcept {
        std::lock_guard guard(lock_);
        return closed_;
    }
    [[nodiscard]] std::size_t size() const noexcept {
        std::lock_guard guard(lock_);
        return size_;
    }
    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

  private:
    enum class outcome { done, closed, gave_up };
    static constexpr std::uintptr_t closed_meanwhile = 1;
    template <class, class>
    friend class receive_case;
    template <class, class>
    friend class send_case;

    void store(T& value) {
        std::size_t at = first_ + size_;
        if (at >= capacity_) at -= capacity_;
        std::construct_at(values_ + at, std::move(value));
        size_++;
    }
    T take() {
        T* const from = values_ + first_;
        T value = std::move(*from);
        std::destroy_at(from);
        if (++first_ == capacity_) first_ = 0;
        size_--;
        return value;
    }
    /// Under the lock, like the next.
    bool put_now(T& value, detail::wait_token*& partner) {
        partner = receivers_.claim_first();
        if (partner) {
            static_cast<std::optional<T>*>(detail::wait_list::node_of(*partner).slot)
                ->emplace(std::move(value));
            return true;
        }
        if (size_ == capacity_) return false;
        store(value);
        return true;
    }
    std::optional<T> get_now(detail::wait_token*& partner) {
        if (size_ == 0) return std::nullopt;
        std::optional<T> value(take());
        partner = senders_.claim_first();
        if (partner) store(*static_cast<T*>(detail::wait_list::node_of(*partner).slot));
        return value;
    }

    outcome put(T& value, const wait_limits* limits) {
        std::unique_lock guard(lock_);
        if (closed_) return outcome::closed;
        detail::wait_token* partner = nullptr;
        if (put_now(value, partner)) [[likely]] {
            guard.unlock();
            if (partner) partner->wake();
            return outcome::done;
        }
        detail::wait_token token;
        token.contended = limits && detail::limited(*limits);
        detail::wait_node node(token);
        node.slot = &value;
        senders_.push(node);
        guard.unlock();
        if (detail::wait(token, limits, "room in a channel", this) != wait_result::ready) {
            guard.lock();
            senders_.remove(node);
            return outcome::gave_up;
        }
        return node.kind == closed_meanwhile ? outcome::closed : outcome::done;
    }

    std::optional<T> get(const wait_limits* limits) {
        std::unique_lock guard(lock_);
        detail::wait_token* partner = nullptr;
        std::optional<T> value = get_now(partner);
        if (value || closed_) {
            guard.unlock();
            if (partner) partner->wake();
            return value;
        }
        detail::wait_token token;
        token.contended = limits && detail::limited(*limits);
        detail::wait_node node(token);
        node.slot = &value;
        receivers_.push(node);
        guard.unlock();
        if (detail::wait(token, limits, "a value of a channel", this) != wait_result::ready) {
            guard.lock();
            receivers_.remove(node);
        }
        return value;
    }

    mutable spin_lock lock_;
    bool closed_ = false;
    const std::size_t capacity_;
    std::size_t first_ = 0, size_ = 0;
    T* values_ = nullptr;  // a ring
    detail::wait_list senders_, receivers_;
};

/// A case of select(), made by on_receive().
template <class T, class Handler>
class receive_case final : public detail::select_case {
  public:
    receive_case(channel<T>& c, Handler h)
        : select_case(c.lock_), channel_(c), handler_(std::move(h)) {}
    bool try_now() override {
        value_ = channel_.get_now(partner);
        return value_ || channel_.closed_;
    }
    void enlist(detail::wait_token& t) override {
        node.emplace(t).slot = &value_;
        channel_.receivers_.push(*node);
    }
    void delist() override { channel_.receivers_.remove(*node); }
    void finish() override { handler_(std::move(value_)); }

  private:
    channel<T>& channel_;
    Handler handler_;
    std::optional<T> value_;
};

/// A case of select(), made by on_send().
template <class T, class Handler>
class send_case final : public detail::select_case {
  public:
    send_case(channel<T>& c, T value, Handler h)
        : select_case(c.lock_), channel_(c), value_(std::move(value)), handler_(std::move(h)) {}
    bool try_now() override {
        if (channel_.closed_) return true;
        return sent_ = channel_.put_now(value_, partner);
    }
    void enlist(detail::wait_token& t) override {
        node.emplace(t).slot = &value_;
        channel_.senders_.push(*node);
    }
    void delist() override { channel_.senders_.remove(*node); }
    void finish() override {
        handler_(sent_ || (node && node->kind != channel<T>::closed_meanwhile));
    }

  private:
    channel<T>& channel_;
    T value_;
    Handler handler_;
    bool sent_ = false;
};

/// The handler gets a std::optional<T>, which is empty when the channel is closed and empty.
template <class T, class Handler>
[[nodiscard]] receive_case<T, Handler> on_receive(channel<T>& c, Handler h) {
    return {c, std::move(h)};
}
/// The handler gets whether the value was sent; if not, the channel is closed.
template <class T, class Value, class Handler>
[[nodiscard]] send_case<T, Handler> on_send(channel<T>& c, Value&& value, Handler h) {
    return {c, T(std::forward<Value>(value)), std::move(h)};
}

/// Waits until one of the cases can go on, does it, and calls its handler. Of several that can, one
/// is chosen in turn.
/// @return which, counted from 0; nothing when the limits came first.
template <class... Cases>
std::optional<std::size_t> select(const wait_limits& limits, Cases&&... cases) {
    const std::array<detail::select_case*, sizeof...(cases)> all{&cases...};
    wait_result result;
    const std::size_t which = detail::select(all.data(), all.size(), &limits, &result);
    if (which == all.size()) return std::nullopt;
    all[which]->finish();
    return which;
}
template <class First, class... Cases>
requires std::derived_from<std::remove_cvref_t<First>, detail::select_case> std::size_t select(
    First&& first, Cases&&... cases) {
    return *select(wait_limits{}, std::forward<First>(first), std::forward<Cases>(cases)...);
}

}  // namespace xos::sched

#endif  // C++20
