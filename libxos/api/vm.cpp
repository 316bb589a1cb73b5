#include <cerrno>
#include <xos/cell.hpp>
#include <xos/vm.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/arch/guest_layout.h"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views.hpp"

namespace xos::vm {

namespace {

[[gnu::noinline]] long through_gateway(gateway service, long a, long b, long c) {
    long result;
    register long r10 asm("r10") = 0, r8 asm("r8") = 0, r9 asm("r9") = 0;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(XOS_GATEWAY_BASE + service), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8),
                   "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

}  // namespace

gva reserve(std::size_t bytes) {
    if (!started()) api::raise(EPERM, "vm::reserve() called before start()");
    struct request {
        std::size_t bytes;
        gva begin;
        base::outcome failed;
    } r{bytes, {}, {}};
    // Slots and reservations are Linux's business, so in host mode.
    host_call(
        [](void* argument) {
            auto& r = *static_cast<request*>(argument);
            r.failed =
                the_frames.ready() ? base::success : the_frames.reserve(api::frame_arena_bytes());
            if (r.failed.ok()) r.failed = reserve_view(r.bytes, r.begin);
        },
        &r);
    if (!r.failed.ok()) api::raise(r.failed);
    return r.begin;
}

gpa allocate_frame() noexcept {
    return the_frames.ready() ? the_frames.allocate() : gpa{0};
}

void free_frame(gpa frame) noexcept {
    the_frames.free(frame);
}

void* frame_data(gpa frame) noexcept {
    return the_frames.data(frame);
}

map_result map(gva page, gpa frame, access a) noexcept {
    const long at = static_cast<long>(page.value), from = static_cast<long>(frame.value);
    const long writable = a == access::read_write;
    if (cell::the_cell.is_ring3()) [[unlikely]] {
        return static_cast<map_result>(through_gateway(gateway_map, at, from, writable));
    }
    return static_cast<map_result>(map_page_directly(at, from, writable));
}

}  // namespace xos::vm
