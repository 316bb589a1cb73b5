// The fault handlers of trap_fault.cpp, in a file of their own: what they inline must be compiled
// for general registers only, too, and a function that is not cannot be inlined into one that is.
#pragma GCC target("general-regs-only")

#include "bench/suites/trap_fault_handlers.hpp"

namespace xos::bench {

frame_ring the_frames;

void fill(frame_ring& ring) {
    for (auto& f : ring.frames) {
        if (!f.value) f = vm::allocate_frame();
    }
}

namespace {

gpa next_frame() {
    return the_frames.frames[the_frames.turn++ % frame_ring::size];
}

verdict map_at_fault(const trap_frame& frame, gpa what) {
    const gva page = gva{frame.fault_address}.align_down(page_size);
    const auto mapped = vm::map(page, what, vm::access::read_write);
    return mapped == vm::map_result::ok ? verdict::resume : verdict::pass;
}

}  // namespace

verdict map_frame(trap_frame& frame, void*) {
    return map_at_fault(frame, next_frame());
}

verdict map_zeroed_frame(trap_frame& frame, void*) {
    const gpa what = next_frame();
    void* to = vm::frame_data(what);
    std::uint64_t words = page_size / 8;
    asm volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(0) : "memory");
    return map_at_fault(frame, what);
}

}  // namespace xos::bench
