// Caches of small objects, one for each thread and heap.
//
// jemalloc's automatic caches mix the objects of all its arenas. A heap that can be destroyed has
// explicit caches, which have a number and may be used by one thread at a time. A thread that ends
// leaves its caches, with their contents, to the next.
#pragma once

#include <cstdint>
#include <vector>

namespace xos::memory {

/// The caches of one heap.
class cache_set {
  public:
    cache_set();
    /// No thread may still be using the caches.
    ~cache_set();
    cache_set(const cache_set&) = delete;
    cache_set& operator=(const cache_set&) = delete;

    /// Returns the calling thread's cache as flags for mallocx(3) and the like.
    int flags() noexcept;
    /// Empties the calling thread's cache and those that no thread uses.
    void flush() noexcept;

  private:
    friend struct own_caches;
    int find() noexcept;

    std::uint64_t serial_;
    std::vector<unsigned> all_, idle_;
};

}  // namespace xos::memory
