#include <sched.h>

#include <xos/sched/spin_lock.hpp>

namespace xos::sched {

void spin_lock::wait() noexcept {
    do {
        for (int i = 0; taken_.load(std::memory_order_relaxed); i++) {
            if (i < 100)
                __builtin_ia32_pause();
            else
                sched_yield();
        }
    } while (taken_.exchange(true, std::memory_order_acquire));
}

}  // namespace xos::sched
