// The pages whose translations a TLB may still hold although the tables allow less.
#pragma once

#include <cstdint>
#include <xos/types.hpp>

namespace xos::paging {

/// Filled by edits of one address space; the caller flushes.
class stale_pages {
  public:
    /// Above this number, reloading CR3 costs less (Linux's tlb_single_page_flush_ceiling is 33).
    static constexpr unsigned capacity = 32;

    void add(gva page) {
        if (count_ < capacity) pages_[count_] = page.value;
        count_++;
    }
    void add_all() { count_ = capacity + 1; }
    void clear() { count_ = 0; }
    bool any() const { return count_ != 0; }
    /// Whether everything must be flushed: there are too many to name.
    bool all() const { return count_ > capacity; }
    /// Calls f(page) for each page, unless all().
    template <class F>
    void for_each(F&& f) const {
        for (unsigned i = 0; i < count_; i++) f(gva{pages_[i]});
    }

  private:
    unsigned count_ = 0;
    std::uint64_t pages_[capacity];  // of type gva they would all be zeroed first
};

}  // namespace xos::paging
