// What the rows of the suite sched do the same way with libxos's fibers, with Boost's and with threads.
#pragma once

#include <cstdint>
#include <mutex>

#include "bench/clock.hpp"

namespace xos::bench {

template <class Mutex>
void lock_and_unlock(Mutex& m, std::uint64_t operations) {
    for (; operations; operations--) {
        m.lock();
        asm volatile("" : : : "memory");
        m.unlock();
    }
}

template <class Mutex>
std::uint64_t ticks_of_locks(Mutex& m, std::uint64_t operations) {
    const std::uint64_t begin = ticks();
    lock_and_unlock(m, operations);
    return ticks() - begin;
}

/// One side of a ping-pong by a condition variable.
template <class Mutex, class Condition>
class ping_pong {
  public:
    void side(bool mine, std::uint64_t n) {
        std::unique_lock lock(m_);
        for (; n; n--) {
            changed_.wait(lock, [&] { return turn_ == mine; });
            turn_ = !mine;
            changed_.notify_one();
        }
    }

  private:
    Mutex m_;
    Condition changed_;
    bool turn_ = false;
};

/// Between this fiber and another, when both have warmed up.
template <class Fiber, class Mutex, class Condition>
std::uint64_t ticks_of_ping_pongs(std::uint64_t operations) {
    ping_pong<Mutex, Condition> table;
    Fiber other([&] { table.side(true, operations / 2 + 4); });
    table.side(false, 4);
    const std::uint64_t begin = ticks();
    table.side(false, operations / 2);
    const std::uint64_t passed = ticks() - begin;
    other.join();
    return passed;
}

}  // namespace xos::bench
