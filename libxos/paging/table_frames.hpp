// The table pages that an edit of page_tables takes from the frame source.
#pragma once

#include <algorithm>
#include <cstdint>

#include "libxos/base/page_list.hpp"
#include "libxos/paging/paging_types.hpp"

namespace xos::paging {

template <frame_source FrameSource>
class table_frames {
  public:
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
                release_spares();
                return status::out_of_frames;
            }
            spares_.push(page, first_word());
            if (!fits_width(page, page_size)) {
                release_spares();
                return status::frame_too_wide;
            }
        }
        return status::ok;
    }
    gpa take() { return spares_.pop(first_word()); }

  private:
    auto first_word() const {
        return [this](gpa page) { return &slots_of(page)->bits; };
    }
    void release_spares() {
        while (!spares_.is_empty()) source_.release(take());
    }

    FrameSource& source_;
    unsigned physical_bits_;
    base::page_list spares_;
};

}  // namespace xos::paging
