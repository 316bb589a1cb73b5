// Excludes editors of the guest's page tables from one another, wherever they run.
//
// Host mode waits in the kernel. Kernel-side code spins for a moment, then leaves the guest to
// wait: the holder may be a vCPU whose thread Linux has stopped. A holder inside the guest touches
// only memory that is always mapped (system arena, libxos's image, its stack): a fault on any other
// memory would need this lock.
#pragma once

#include <linux/futex.h>

#include <atomic>

#include "libxos/arch/guest_area.hpp"
#include "libxos/base/raw_syscall.hpp"

namespace xos::memory {

class edit_lock {
  public:
    void lock_in_host() {
        if (try_lock()) return;
        while (word_.exchange(contended, std::memory_order_acquire) != free) wait(this);
    }
    void unlock_in_host() {
        if (word_.exchange(free, std::memory_order_release) == contended) wake(this);
    }
    void lock_in_guest() {
        if (try_lock()) [[likely]]
            return;
        constexpr unsigned patience = 200;
        for (unsigned i = 0; i < patience; i++) {
            asm volatile("pause");
            if (try_lock()) return;
        }
        while (word_.exchange(contended, std::memory_order_acquire) != free) {
            arch::call_host_from_kernel(wait, this);
        }
    }
    void unlock_in_guest() {
        if (word_.exchange(free, std::memory_order_release) == contended) [[unlikely]]
            arch::call_host_from_kernel(wake, this);
    }

    /// For the child after fork: the thread that held the lock does not exist here.
    void reset() { word_.store(free, std::memory_order_relaxed); }

  private:
    static constexpr std::uint32_t free = 0, held = 1, contended = 2;

    bool try_lock() {
        std::uint32_t expected = free;
        return word_.compare_exchange_strong(expected, held, std::memory_order_acquire);
    }
    static void wait(void* self) {
        auto* word = &static_cast<edit_lock*>(self)->word_;
        base::raw_syscall(__NR_futex, base::as_long(word), FUTEX_WAIT_PRIVATE, contended);
    }
    static void wake(void* self) {
        auto* word = &static_cast<edit_lock*>(self)->word_;
        base::raw_syscall(__NR_futex, base::as_long(word), FUTEX_WAKE_PRIVATE, 1);
    }

    std::atomic<std::uint32_t> word_{free};
};

/// In host mode.
class host_edit {
  public:
    explicit host_edit(edit_lock& l) : lock_(l) { lock_.lock_in_host(); }
    ~host_edit() { lock_.unlock_in_host(); }
    host_edit(const host_edit&) = delete;
    host_edit& operator=(const host_edit&) = delete;

  private:
    edit_lock& lock_;
};

/// Kernel side.
class guest_edit {
  public:
    explicit guest_edit(edit_lock& l) : lock_(l) { lock_.lock_in_guest(); }
    ~guest_edit() { lock_.unlock_in_guest(); }
    guest_edit(const guest_edit&) = delete;
    guest_edit& operator=(const guest_edit&) = delete;

  private:
    edit_lock& lock_;
};

}  // namespace xos::memory
