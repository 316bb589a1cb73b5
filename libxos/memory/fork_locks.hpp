// Every lock that a thread may hold while another one forks.
//
// The child has only the thread that forked: what another one holds would stay locked there for
// ever, and what it was changing would stay half-changed. So a fork takes all of them before, which
// waits for the changes to end, and the child begins with all of them free. A lock that is declared
// elsewhere fails the build (tools/check_locks.py). A child that shares its parent's memory, as
// that of vfork(2), shares the locks, too: nothing is taken or reset for it.
#pragma once

#include <atomic>

#include "libxos/base/futex_lock.hpp"
#include "libxos/memory/edit_lock.hpp"

namespace xos::memory {

/// In the order in which they are taken: who holds one takes only such as stand below it, and waits
/// for nothing of the application's.
struct fork_locks {
    base::futex_lock reporting;      ///< statistics are printed; from the last time on for ever
    base::futex_lock arenas;         ///< an arena is made or chosen
    base::futex_lock process_arena;  ///< that of anonymous memory is made
    base::futex_lock views;          ///< a view or the frames are made
    base::futex_lock addresses;      ///< where the next view or arena lies
    base::futex_lock contexts;       ///< a context is taken or made
    base::futex_lock handlers;       ///< the table of fault handlers changes
    edit_lock editing;               ///< the guest's page tables, and the allocators below arenas

    /// Odd while the table of fault handlers changes, under its lock. Readers wait for an even one.
    std::atomic<std::uint32_t> handlers_sequence{0};

    /// Of tests: called by whoever has taken one of the locks above, but for `editing`.
    void (*when_taken)(base::futex_lock&) = nullptr;

    void take_all();
    void give_back_all();
    /// In the child, whoever held them.
    void reset();
};

extern fork_locks the_locks;

/// Holds one of them.
class held {
  public:
    explicit held(base::futex_lock& l) : lock_(l) {
        lock_.lock();
        if (the_locks.when_taken) [[unlikely]]
            the_locks.when_taken(lock_);
    }
    ~held() { lock_.unlock(); }
    held(const held&) = delete;
    held& operator=(const held&) = delete;

  private:
    base::futex_lock& lock_;
};

}  // namespace xos::memory
