// A mutex for code without libc, taken in host mode only. The holder is then never interrupted by a
// signal handler that might take the lock too, and is never a stopped vCPU.
#pragma once

#include <linux/futex.h>

#include <atomic>

#include "libxos/base/raw_syscall.hpp"

namespace xos::base {

class futex_lock {
  public:
    void lock() {
        std::uint32_t expected = free;
        if (word_.compare_exchange_strong(expected, held, std::memory_order_acquire)) return;
        while (word_.exchange(contended, std::memory_order_acquire) != free) {
            raw_syscall(__NR_futex, as_long(&word_), FUTEX_WAIT_PRIVATE, contended);
        }
    }
    void unlock() {
        if (word_.exchange(free, std::memory_order_release) == contended) {
            raw_syscall(__NR_futex, as_long(&word_), FUTEX_WAKE_PRIVATE, 1);
        }
    }
    /// For the child after fork: the thread that held the lock does not exist here.
    void reset() { word_.store(free, std::memory_order_relaxed); }

  private:
    static constexpr std::uint32_t free = 0, held = 1, contended = 2;
    std::atomic<std::uint32_t> word_{free};
};

}  // namespace xos::base
