// Says which fiber's stack has overflowed.
#pragma once

#include <xos/sched/detail/worker.hpp>

namespace xos::sched::detail {

void add_region(const stack_region& r);
void remove_region(const stack_region& r) noexcept;

/// From now on a fault in a guard page is reported before it takes its course. The first call
/// counts.
void watch_overflows();

/// A signal stack for the calling thread, unless it has one: a handler cannot run on a stack that
/// has overflowed.
class signal_stack {
  public:
    signal_stack();
    ~signal_stack();
    signal_stack(const signal_stack&) = delete;
    signal_stack& operator=(const signal_stack&) = delete;

  private:
    void* memory_ = nullptr;
};

/// For stacks without a guard page, when a switch finds the stack pointer below.
[[noreturn]] void report_overflow(const fiber_state& f) noexcept;

}  // namespace xos::sched::detail
