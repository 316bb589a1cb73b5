// A lock for many readers or one writer, for code without libc. Never taken inside the guest.
#pragma once

#include <linux/futex.h>

#include <atomic>

#include "libxos/base/raw_syscall.hpp"

namespace xos::base {

class shared_lock {
  public:
    void lock() {
        for (std::uint32_t seen = word_.load(std::memory_order_relaxed);;) {
            if (seen & ~waiting)
                seen = wait(seen);
            else if (word_.compare_exchange_weak(seen, seen | writer, std::memory_order_acquire))
                return;
        }
    }
    void unlock() {
        if (word_.fetch_and(~(writer | waiting), std::memory_order_release) & waiting) wake_all();
    }
    void lock_shared() {
        for (std::uint32_t seen = word_.load(std::memory_order_relaxed);;) {
            if (seen & writer)
                seen = wait(seen);
            else if (word_.compare_exchange_weak(seen, seen + 1, std::memory_order_acquire))
                return;
        }
    }
    void unlock_shared() {
        const std::uint32_t left = word_.fetch_sub(1, std::memory_order_release) - 1;
        if (left != waiting) return;
        // The last reader wakes the waiter; if another reader has come meanwhile, that one will.
        std::uint32_t expected = waiting;
        if (word_.compare_exchange_strong(expected, 0, std::memory_order_relaxed)) wake_all();
    }
    /// For the child after fork: the thread that held the lock does not exist here.
    void reset() { word_.store(0, std::memory_order_relaxed); }

  private:
    static constexpr std::uint32_t writer = 1u << 31, waiting = 1u << 30;

    std::uint32_t wait(std::uint32_t seen) {
        if (!(seen & waiting) && !word_.compare_exchange_strong(seen, seen | waiting)) return seen;
        raw_syscall(__NR_futex, as_long(&word_), FUTEX_WAIT_PRIVATE,
                    static_cast<long>(seen | waiting));
        return word_.load(std::memory_order_relaxed);
    }
    void wake_all() { raw_syscall(__NR_futex, as_long(&word_), FUTEX_WAKE_PRIVATE, 0x7fffffff); }

    std::atomic<std::uint32_t> word_{0};
};

}  // namespace xos::base
