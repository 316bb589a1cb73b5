#include <algorithm>
#include <mutex>
#include <vector>
#include <xos/sched/channel.hpp>
#include <xos/sched/condition_variable.hpp>
#include <xos/sched/semaphore.hpp>

namespace xos::sched {

void condition_variable::give_up(detail::wait_node& n) noexcept {
    std::lock_guard guard(lock_);
    if (n.linked)
        waiting_.store(waiting_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
    waiters_.remove(n);
}

bool condition_variable::notify_first() noexcept {
    detail::wait_token* first = nullptr;
    {
        std::lock_guard guard(lock_);
        while (!waiters_.empty() && !first) {
            waiting_.store(waiting_.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
            first = waiters_.claim_front();
        }
    }
    if (first) first->wake();
    return first;
}

bool semaphore::try_acquire() noexcept {
    std::lock_guard guard(lock_);
    if (units_ <= 0) return false;
    units_--;
    return true;
}

wait_result semaphore::take(const wait_limits* limits) {
    detail::wait_token token;
    token.contended = limits && detail::limited(*limits);
    detail::wait_node node(token);
    {
        std::lock_guard guard(lock_);
        if (units_ > 0) {
            units_--;
            return wait_result::ready;
        }
        waiters_.push(node);
    }
    const wait_result r = detail::wait(token, limits, "a semaphore", this);
    if (r != wait_result::ready) {
        std::lock_guard guard(lock_);
        waiters_.remove(node);
    }
    return r;
}

void semaphore::release(std::ptrdiff_t units) noexcept {
    detail::wake_list woken;
    {
        std::lock_guard guard(lock_);
        while (units > 0) {
            detail::wait_token* const next = waiters_.claim_first();
            if (!next) break;
            woken.add(*next);
            units--;
        }
        units_ += units;
    }
    woken.wake_all();
}

void latch::count_down(std::ptrdiff_t n) noexcept {
    detail::wake_list woken;
    {
        std::lock_guard guard(lock_);
        left_ -= n;
        if (left_ <= 0) {
            while (detail::wait_token* const next = waiters_.claim_first()) woken.add(*next);
        }
    }
    woken.wake_all();
}

bool latch::try_wait() const noexcept {
    std::lock_guard guard(lock_);
    return left_ <= 0;
}

wait_result latch::wait_with(const wait_limits* limits) {
    detail::wait_token token;
    token.contended = limits && detail::limited(*limits);
    detail::wait_node node(token);
    {
        std::lock_guard guard(lock_);
        if (left_ <= 0) return wait_result::ready;
        waiters_.push(node);
    }
    const wait_result r = detail::wait(token, limits, "a latch", this);
    if (r != wait_result::ready) {
        std::lock_guard guard(lock_);
        waiters_.remove(node);
    }
    return r;
}

void barrier::open(detail::wake_list& woken) {
    if (completion_) completion_();
    left_ = expected_;
    while (detail::wait_token* const next = waiters_.claim_first()) woken.add(*next);
}

wait_result barrier::arrive(const wait_limits* limits) {
    detail::wait_token token;
    token.contended = limits && detail::limited(*limits);
    detail::wait_node node(token);
    detail::wake_list woken;
    {
        std::unique_lock guard(lock_);
        if (--left_ > 0) {
            waiters_.push(node);
            guard.unlock();
            const wait_result r = detail::wait(token, limits, "a barrier", this);
            if (r != wait_result::ready) {
                guard.lock();
                waiters_.remove(node);
            }
            return r;
        }
        open(woken);
    }
    woken.wake_all();
    return wait_result::ready;
}

void barrier::arrive_and_drop() {
    detail::wake_list woken;
    {
        std::lock_guard guard(lock_);
        expected_--;
        if (--left_ <= 0) open(woken);
    }
    woken.wake_all();
}

namespace detail {

namespace {

/// The locks of all channels, each once, in one order for all.
class all_locks {
  public:
    all_locks(select_case* const* cases, std::size_t count) {
        locks_.reserve(count);
        for (std::size_t i = 0; i < count; i++) locks_.push_back(cases[i]->lock);
        std::sort(locks_.begin(), locks_.end(), std::less<>());
        locks_.erase(std::unique(locks_.begin(), locks_.end()), locks_.end());
    }
    void lock() noexcept {
        for (spin_lock* l : locks_) l->lock();
    }
    void unlock() noexcept {
        for (spin_lock* l : locks_) l->unlock();
    }

  private:
    std::vector<spin_lock*> locks_;
};

}  // namespace

std::size_t select(select_case* const* cases, std::size_t count, const wait_limits* limits,
                   wait_result* result) {
    static thread_local unsigned turn = 0;
    const std::size_t begin = turn++ % count;
    all_locks locks(cases, count);
    wait_token token;
    token.contended = true;  // by each of the channels
    *result = wait_result::ready;
    {
        // Nobody claims the token while all locks are held.
        std::unique_lock guard(locks);
        for (std::size_t i = 0; i < count; i++) {
            select_case& c = *cases[(begin + i) % count];
            if (!c.try_now()) continue;
            guard.unlock();
            if (c.partner) c.partner->wake();
            return (begin + i) % count;
        }
        for (std::size_t i = 0; i < count; i++) cases[i]->enlist(token);
    }
    *result = wait(token, limits, "one of several channels", nullptr);
    {
        std::lock_guard guard(locks);
        for (std::size_t i = 0; i < count; i++) cases[i]->delist();
    }
    if (*result != wait_result::ready) return count;
    std::size_t which = 0;
    while (&*cases[which]->node != token.fired) which++;
    return which;
}

}  // namespace detail

}  // namespace xos::sched
