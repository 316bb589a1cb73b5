// The table pages that an edit of page_tables takes from the frame source and gives back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "libxos/paging/paging_types.hpp"

namespace xos::paging {

/// Lists of table pages outside the tree, linked through their first entry. The link is a
/// not-present entry: a CPU that still walks a page just unlinked finds nothing there.
template <frame_source FrameSource>
class table_frames {
  public:
    struct list {
        gpa head;
        bool is_empty() const { return head == gpa{}; }
    };

    table_frames(FrameSource& source, unsigned physical_bits)
        : source_(source), physical_bits_(std::min(physical_bits, 52u)) {}

    bool fits_width(gpa frame, std::uint64_t length) const {
        const std::uint64_t limit = std::uint64_t{1} << physical_bits_;
        return frame.value < limit && length <= limit - frame.value;
    }

    arch::entry* slots_of(gpa table) const { return source_.table(table); }

    /// After ok, take() succeeds `count` times; after an error nothing is reserved.
    status reserve(std::uint64_t count) {
        for (; count != 0; --count) {
            const gpa page = source_.allocate();
            if (page == gpa{}) {
                release(spares_);
                return status::out_of_frames;
            }
            push(spares_, page);
            if (!fits_width(page, page_size)) {
                release(spares_);
                return status::frame_too_wide;
            }
        }
        return status::ok;
    }
    gpa take() { return pop(spares_); }

    void push(list& pages, gpa page) {
        arch::store(*slots_of(page), arch::entry(pages.head.value));
        pages.head = page;
    }
    void release(list& pages) {
        while (!pages.is_empty()) source_.release(pop(pages));
    }

  private:
    gpa pop(list& pages) {
        const gpa page = pages.head;
        pages.head = gpa(arch::exchange(*slots_of(page), arch::entry{}).bits);
        return page;
    }

    FrameSource& source_;
    unsigned physical_bits_;
    list spares_;
};

}  // namespace xos::paging
