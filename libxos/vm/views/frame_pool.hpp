// The frames that views map: a pool in memory that the guest sees at its host addresses, too.
#pragma once

#include <atomic>

#include "libxos/base/outcome.hpp"
#include "libxos/base/page_list.hpp"
#include "libxos/memory/address_space.hpp"

namespace xos::vm {

/// A stack of free frames, linked through the frames themselves; lock-free, because both modes use
/// it.
class frame_pool {
  public:
    void attach(const memory::region& frames);
    bool ready() const { return length_ != 0; }
    /// A frame that was used before is not zeroed.
    gpa allocate();
    void free(gpa frame);
    bool owns(gpa frame) const {
        return frame - physical_ < length_ && frame.is_aligned(page_size);
    }
    void* data(gpa frame) const {
        return reinterpret_cast<void*>((host_ + (frame - physical_)).value);
    }

    /// Sets `count` frames aside for take_aside(), or none. Under the address space's lock.
    bool set_aside(std::uint64_t count);
    gpa take_aside();

  private:
    std::uint64_t* word_of(gpa frame) const { return static_cast<std::uint64_t*>(data(frame)); }
    /// Another thread may be about to take the frame, and read the link that it had.
    volatile std::uint64_t& link(gpa frame) const { return *word_of(frame); }

    hva host_;
    gpa physical_;
    std::uint64_t length_ = 0;
    base::page_list aside_;
    std::atomic<std::uint64_t> fresh_ = 0;  ///< offset of the first frame never handed out
    std::atomic<std::uint64_t> free_ = 0;   ///< tag << 32 | index + 1
};

extern frame_pool the_frames;

/// Makes the frame pool; called once.
base::outcome reserve_frames(std::uint64_t bytes);

}  // namespace xos::vm
