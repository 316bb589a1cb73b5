// A lock for a few instructions.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <atomic>

namespace xos::sched {

/// Held for a few instructions only, and never while a fiber switches. Meets BasicLockable.
class spin_lock {
  public:
    void lock() noexcept {
        if (taken_.exchange(true, std::memory_order_acquire)) [[unlikely]]
            wait();
    }
    void unlock() noexcept { taken_.store(false, std::memory_order_release); }

  private:
    /// Spins, then lets Linux run whoever holds it.
    void wait() noexcept;
    std::atomic<bool> taken_{false};
};

}  // namespace xos::sched

#endif  // C++20
