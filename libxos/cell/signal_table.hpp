// The application's action for each signal. The kernel has the trampoline in place of each handler.
#pragma once

#include "libxos/base/bytes.hpp"
#include "libxos/base/shared_lock.hpp"
#include "libxos/cell/kernel_abi.hpp"

namespace xos::cell {

class signal_table {
  public:
    kernel_sigaction of[signal_count + 1];

    /// Held exclusively while an entry changes here and in the kernel; held shared from the
    /// decision to deliver a signal until its frame has been built. A handler that became SIG_IGN
    /// in between would leave the thread in host mode with nothing to bring it back.
    base::shared_lock lock;

    /// Copies the table of a thread, for a process that shares its memory but not its handlers.
    void copy_from(signal_table& other) {
        lock.reset();
        other.lock.lock_shared();
        base::copy_bytes(of, other.of, sizeof of);
        other.lock.unlock_shared();
    }
};

}  // namespace xos::cell
