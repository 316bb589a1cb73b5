// What the application has asked for each signal. The kernel has the trampoline for every handler.
#pragma once

#include "libxos/base/bytes.hpp"
#include "libxos/base/shared_lock.hpp"
#include "libxos/cell/kernel_abi.hpp"

namespace xos::cell {

class signal_table {
  public:
    kernel_sigaction of[signal_count + 1];

    /// Exclusive while an entry changes here and in the kernel. Shared from the moment that a
    /// delivery is decided until its frame has been built: a handler that became SIG_IGN in between
    /// would leave the thread in host mode with nothing to bring it back.
    base::shared_lock lock;

    /// Of a thread, for a process that shares memory with it but not its handlers.
    void copy_from(signal_table& other) {
        lock.reset();
        other.lock.lock_shared();
        base::copy_bytes(of, other.of, sizeof of);
        other.lock.unlock_shared();
    }
};

}  // namespace xos::cell
