// Which translations of the guest have to be forgotten, and how: kernel side.
#pragma once

#include <xos/types.hpp>

#include <cstdint>

namespace xos::vm {

/// The translations of this address space that have changed and must be flushed.
class stale_translations {
  public:
    void add(gva page) {
        if (count_ < capacity) pages_[count_] = page.value;
        count_++;
    }
    void add_all() { count_ = capacity + 1; }
    bool any() const { return count_ != 0; }
    /// Flushes on this vCPU and on every other one that holds translations.
    void flush();

  private:
    /// Above this number, reloading CR3 costs less (Linux's tlb_single_page_flush_ceiling is 33).
    static constexpr unsigned capacity = 32;
    unsigned count_ = 0;
    std::uint64_t pages_[capacity];  // of type gva they would all be zeroed first
};

void flush_page(gva page);

/// The number of flushes so far, on any vCPU: a tagged TLB entry of another space may have missed
/// some.
extern std::uint64_t the_flushes;

/// Flushes a page on this CPU, which reads its own tables.
inline void invalidate(gva page) {
    asm volatile("invlpg (%0)" : : "r"(page.value) : "memory");
}

}  // namespace xos::vm
