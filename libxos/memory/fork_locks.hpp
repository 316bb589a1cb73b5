// Every lock that a thread may hold while another one forks.
//
// The child has only the thread that forked: a lock of another thread would stay locked there for
// ever, and what it protects would stay half-changed. So a fork first takes all of these locks,
// which waits for changes to end, and all of them are free in the child. A lock that is declared
// elsewhere fails the build (tools/check_locks.py). A child that shares its parent's memory, as
// after vfork(2), shares the locks too: none is taken or reset for it.
#pragma once

#include <atomic>

#include "libxos/base/futex_lock.hpp"
#include "libxos/memory/edit_lock.hpp"

namespace xos::memory {

/// Listed in the order in which they are taken: the holder of one takes only locks below it, and
/// waits for nothing of the application's.
struct fork_locks {
    base::futex_lock reporting;      ///< statistics are printed; the last report keeps it for ever
    base::futex_lock arenas;         ///< an arena is made or chosen
    base::futex_lock process_arena;  ///< the arena of anonymous memory is made
    base::futex_lock views;          ///< a view or the frames are made
    base::futex_lock addresses;      ///< where the next view or arena lies
    base::futex_lock contexts;       ///< a context is taken or made
    base::futex_lock handlers;       ///< the table of fault handlers changes
    edit_lock editing;               ///< the guest's page tables, and the allocators below arenas

    /// Odd while the table of fault handlers changes, under its lock. Readers wait for an even
    /// value.
    std::atomic<std::uint32_t> handlers_sequence{0};

    /// For tests: called by each thread that has taken one of the locks above, except `editing`.
    void (*when_taken)(base::futex_lock&) = nullptr;

    void take_all();
    void give_back_all();
    /// For the child: frees all of them, whoever held them.
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
