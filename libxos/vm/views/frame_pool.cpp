// Used in both modes.
#include "libxos/vm/views/frame_pool.hpp"

#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"

namespace xos::vm {

frame_pool the_frames;

namespace {

constexpr std::uint64_t index_mask = 0xffffffff;

}  // namespace

void frame_pool::attach(const memory::region& frames) {
    host_ = frames.host;
    physical_ = frames.physical;
    length_ = frames.length;
}

gpa frame_pool::allocate() {
    std::uint64_t head = free_.load(std::memory_order_acquire);
    while (head & index_mask) {
        const gpa frame = physical_ + ((head & index_mask) - 1) * page_size;
        const std::uint64_t next = link(frame);
        const std::uint64_t changed = ((head >> 32) + 1) << 32 | (next & index_mask);
        if (free_.compare_exchange_weak(head, changed, std::memory_order_acq_rel)) {
            link(frame) = 0;
            return frame;
        }
    }
    std::uint64_t fresh = fresh_.load(std::memory_order_relaxed);
    do {
        if (fresh + page_size > length_) return gpa{0};
    } while (!fresh_.compare_exchange_weak(fresh, fresh + page_size, std::memory_order_relaxed));
    return physical_ + fresh;
}

void frame_pool::free(gpa frame) {
    const std::uint64_t index = (frame - physical_) / page_size + 1;
    std::uint64_t head = free_.load(std::memory_order_relaxed), changed;
    do {
        link(frame) = head & index_mask;
        changed = ((head >> 32) + 1) << 32 | index;
    } while (!free_.compare_exchange_weak(head, changed, std::memory_order_acq_rel));
}

bool frame_pool::set_aside(std::uint64_t count) {
    for (; count; count--) {
        const gpa frame = allocate();
        if (!frame.value) {
            while (!aside_.is_empty()) free(take_aside());
            return false;
        }
        aside_.push(frame, [this](gpa f) { return word_of(f); });
    }
    return true;
}

gpa frame_pool::take_aside() {
    return aside_.pop([this](gpa f) { return word_of(f); });
}

}  // namespace xos::vm
