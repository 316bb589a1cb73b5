// Views: guest addresses without host memory, and the frames to put there.
#pragma once

#include <atomic>
#include <xos/vm.hpp>

#include "libxos/base/futex_lock.hpp"
#include "libxos/base/outcome.hpp"
#include "libxos/memory/address_space.hpp"

namespace xos::vm {

/// Read by kernel-side code; never changes once it is there. The level-1 tables stay for good, so a
/// page's entry is found without a walk.
struct view {
    gva begin;
    std::uint64_t length = 0;
    arch::entry** tables = nullptr;  ///< one for each 2 MiB
};

struct view_table {
    static constexpr unsigned capacity = 128;
    std::atomic<unsigned> count = 0;
    view views[capacity];

    /// The entry of a page, or null where no view is.
    arch::entry* slot_of(gva page) const {
        const unsigned n = count.load(std::memory_order_acquire);
        for (unsigned i = 0; i < n; i++) {
            const std::uint64_t offset = page.value - views[i].begin.value;
            if (offset >= views[i].length) continue;
            return views[i].tables[offset / large_page_size] + (offset / page_size & 511);
        }
        return nullptr;
    }

    bool contains(gva begin, std::uint64_t length) const {
        const unsigned n = count.load(std::memory_order_acquire);
        for (unsigned i = 0; i < n; i++) {
            const std::uint64_t offset = begin.value - views[i].begin.value;
            if (offset < views[i].length && length <= views[i].length - offset) return true;
        }
        return false;
    }
};

/// A stack of free frames, threaded through the frames themselves; lock-free, because both modes
/// use it.
class frame_pool {
  public:
    base::outcome reserve(std::size_t bytes);
    bool ready() const { return length_ != 0; }
    gpa allocate();
    void free(gpa frame);
    void* data(gpa frame) const {
        return reinterpret_cast<void*>((host_ + (frame - physical_)).value);
    }

  private:
    hva host_;
    gpa physical_;
    std::uint64_t length_ = 0;
    std::atomic<std::uint64_t> fresh_ = 0;  ///< offset of the first frame never handed out
    std::atomic<std::uint64_t> free_ = 0;   ///< tag << 32 | index + 1
};

extern view_table the_views;
extern frame_pool the_frames;

base::outcome reserve_view(std::uint64_t bytes, gva& begin);

/// Kernel side: edits the tables. In ring3 reached through the gateway.
long map_page(long page, long frame, long writable, long, long, long);
/// The same as a function of ordinary code in the flat modes: signals wait until it is done.
long map_page_directly(long page, long frame, long writable);

/// Gateway numbers (XOS_GATEWAY_BASE + n).
enum gateway : unsigned { gateway_map = 0 };

}  // namespace xos::vm
