#include "libxos/memory/fork_locks.hpp"

namespace xos::memory {

constinit fork_locks the_locks;

namespace {

constexpr base::futex_lock fork_locks::*in_order[] = {
    &fork_locks::reporting, &fork_locks::arenas,   &fork_locks::process_arena, &fork_locks::views,
    &fork_locks::addresses, &fork_locks::contexts, &fork_locks::handlers};

}  // namespace

void fork_locks::take_all() {
    for (const auto which : in_order) (this->*which).lock();
    editing.lock_in_host();
}

void fork_locks::give_back_all() {
    editing.unlock_in_host();
    for (unsigned i = sizeof in_order / sizeof *in_order; i-- > 0;) (this->*in_order[i]).unlock();
}

void fork_locks::reset() {
    for (const auto which : in_order) (this->*which).reset();
    editing.reset();
    // The number becomes even also after a fork in host mode, which takes none of the locks.
    const std::uint32_t now = handlers_sequence.load(std::memory_order_relaxed);
    handlers_sequence.store(now + (now & 1), std::memory_order_relaxed);
}

}  // namespace xos::memory
