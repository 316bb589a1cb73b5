// A bounded number of frames for the pages of a store, replaced by the clock algorithm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "object_space.hpp"
#include "page_file.hpp"

namespace swizzle {

struct pool_counters {
    std::size_t faults = 0;
    std::size_t reads = 0;
    std::size_t evictions = 0;
    std::size_t writes = 0;  ///< of pages that had changed
};

class buffer_pool {
  public:
    buffer_pool(object_space& space, page_file& store, std::size_t frames);

    /// Makes the page accessible. Called by fault handlers: an error ends the process, because no
    /// exception passes through the code that faulted.
    void provide(std::size_t page, intent wanted) noexcept;

    /// Puts everything back into the store.
    void evict_all();

    const pool_counters& counters() const { return counters_; }

  private:
    struct frame_state {
        std::size_t page = nowhere;
        bool used = false;   ///< since the hand last came by
        bool dirty = false;  ///< since it was read
    };
    static constexpr std::size_t nowhere = ~std::size_t{0};

    std::size_t take_free_frame();
    void evict_some();
    void evict(std::size_t frame);
    void note_accesses();

    object_space& space_;
    page_file& store_;
    std::vector<frame_state> frames_;
    std::vector<std::size_t> frame_of_page_;
    std::vector<std::size_t> free_;
    std::vector<placement> leaving_;  ///< evicted, not yet unmapped
    std::vector<std::uint64_t> accessed_;
    std::size_t hand_ = 0;
    pool_counters counters_;
};

}  // namespace swizzle
