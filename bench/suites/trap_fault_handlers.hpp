#pragma once

#include <cstdint>
#include <xos/trap.hpp>
#include <xos/vm.hpp>

namespace xos::bench {

/// Frames that all pages share: what is measured is mapping, not having memory.
struct frame_ring {
    static constexpr unsigned size = 8;
    gpa frames[size];
    unsigned turn;
};
extern frame_ring the_frames;
/// Unless that was done before. Needs a view.
void fill(frame_ring& ring);

/// Maps the next frame where the fault was.
verdict map_frame(trap_frame& frame, void*);
/// The same, zeroed.
verdict map_zeroed_frame(trap_frame& frame, void*);

}  // namespace xos::bench
