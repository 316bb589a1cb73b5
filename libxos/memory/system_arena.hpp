// The memory that libxos keeps for itself inside the guest: page tables, vCPU areas, stacks.
//
// One host mapping, one slot, GVA == HVA. The first part belongs to kernel-side code (supervisor
// pages in `ring3`), the rest to code at the application's privilege. Pages are handed out and
// never taken back: their owners pool them for reuse.
#pragma once

#include <atomic>
#include <xos/types.hpp>

#include "libxos/base/outcome.hpp"

namespace xos::memory {

class system_arena {
  public:
    /// Reserves address space; pages come when touched. `bytes` is rounded up to 4 MiB.
    base::outcome reserve(std::size_t bytes, std::size_t kernel_bytes);

    void release();

    hva begin() const { return begin_; }
    hva end() const { return begin_ + size_; }
    std::size_t size() const { return size_; }
    /// The beginning of the part for code at the application's privilege.
    hva user_begin() const { return user_begin_; }

    /// Returns zeroed pages, or hva{0}.
    hva allocate_kernel(std::size_t bytes) { return take(kernel_next_, user_begin_, bytes); }
    hva allocate_user(std::size_t bytes) { return take(user_next_, end(), bytes); }

  private:
    static hva take(std::atomic<std::uint64_t>& next, hva limit, std::size_t bytes);

    hva begin_, user_begin_;
    std::size_t size_ = 0;
    std::atomic<std::uint64_t> kernel_next_ = 0, user_next_ = 0;
};

}  // namespace xos::memory
