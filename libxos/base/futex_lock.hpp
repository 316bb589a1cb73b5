// A mutex for code without libc. Never taken inside the guest: a vCPU that holds it could be
// stopped.
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
    /// After fork: whoever held it does not exist here.
    void reset() { word_.store(free, std::memory_order_relaxed); }

  private:
    static constexpr std::uint32_t free = 0, held = 1, contended = 2;
    std::atomic<std::uint32_t> word_{free};
};

class lock_guard {
  public:
    explicit lock_guard(futex_lock& l) : lock_(l) { lock_.lock(); }
    ~lock_guard() { lock_.unlock(); }
    lock_guard(const lock_guard&) = delete;
    lock_guard& operator=(const lock_guard&) = delete;

  private:
    futex_lock& lock_;
};

}  // namespace xos::base
