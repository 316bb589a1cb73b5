#include "buffer_pool.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>
#include <utility>

#include "tree.hpp"

namespace swizzle {

buffer_pool::buffer_pool(object_space& space, page_file& store, std::size_t frames)
    : space_(space),
      store_(store),
      frames_(frames),
      frame_of_page_(store.pages(), nowhere),
      free_(frames),
      accessed_((store.pages() + 63) / 64) {
    std::iota(free_.rbegin(), free_.rend(), std::size_t{0});
    leaving_.reserve(frames);
}

void buffer_pool::provide(std::size_t page, intent wanted) noexcept {
    counters_.faults++;
    std::size_t frame = frame_of_page_[page];
    if (frame == nowhere) {
        frame = take_free_frame();
        std::byte* data = space_.incoming(frame);
        store_.read(page, data);
        counters_.reads++;
        swizzle(*reinterpret_cast<node*>(data), space_.base());
        frames_[frame] = {.page = page};
        frame_of_page_[page] = frame;
    }
    // Mapped for writing by the first write only, so that clean pages are known.
    if (wanted == intent::write) frames_[frame].dirty = true;
    space_.map({page, frame}, wanted);
}

std::size_t buffer_pool::take_free_frame() {
    if (free_.empty()) evict_some();
    const std::size_t frame = free_.back();
    free_.pop_back();
    return frame;
}

/// Several at a time, because they are unmapped together: one flush for all.
void buffer_pool::evict_some() {
    const std::size_t wanted = std::clamp<std::size_t>(frames_.size() / 8, 1, 32);
    note_accesses();
    while (leaving_.size() < wanted) {
        frame_state& f = frames_[hand_];
        if (f.page != nowhere && !std::exchange(f.used, false)) evict(hand_);
        hand_ = (hand_ + 1) % frames_.size();
    }
    space_.unmap(leaving_);
    leaving_.clear();
}

/// In front of the unmapping, while the only thread that could write waits for its fault. With more
/// threads, the pages would be protected first.
void buffer_pool::evict(std::size_t frame) {
    frame_state& f = frames_[frame];
    leaving_.push_back({f.page, frame});
    if (f.dirty) {
        static_assert(alignof(node) == sizeof(node));
        node copy;
        std::memcpy(&copy, space_.contents({f.page, frame}), sizeof copy);
        unswizzle(copy, space_.base());
        store_.write(f.page, &copy);
        counters_.writes++;
    }
    counters_.evictions++;
    frame_of_page_[f.page] = nowhere;
    free_.push_back(frame);
    f = {};
}

/// A way that cannot tell leaves all bits clear, and the clock replaces the oldest page.
void buffer_pool::note_accesses() {
    std::fill(accessed_.begin(), accessed_.end(), 0);
    space_.take_accessed(accessed_.data());
    for (std::size_t i = 0; i < accessed_.size(); i++) {
        for (std::uint64_t rest = accessed_[i]; rest; rest &= rest - 1) {
            const std::size_t page = i * 64 + static_cast<unsigned>(std::countr_zero(rest));
            if (frame_of_page_[page] != nowhere) frames_[frame_of_page_[page]].used = true;
        }
    }
}

void buffer_pool::evict_all() {
    for (std::size_t frame = 0; frame < frames_.size(); frame++) {
        if (frames_[frame].page != nowhere) evict(frame);
    }
    space_.unmap(leaving_);
    leaving_.clear();
}

}  // namespace swizzle
