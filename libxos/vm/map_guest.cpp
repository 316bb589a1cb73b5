// Kernel side: one page into a view, without an exit.
#include "libxos/arch/guest_area.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views.hpp"

namespace xos::vm {

namespace {

[[gnu::always_inline]] inline map_result map_one(gva at, gpa from, bool writable) {
    if (!at.is_aligned(page_size) || !from.is_aligned(page_size)) return map_result::misaligned;
    arch::entry* slot = the_views.slot_of(at);
    if (!slot) return map_result::not_reserved;
    const auto bits = writable ? memory::everything : paging::protection::user;
    const auto used = memory::accessed_and_dirty;
    const arch::entry wanted{paging::leaf_entry(from, bits).bits |
                             static_cast<std::uint64_t>(used)};
    // Not present to present, or read-only to writable: no translation that a TLB holds allows more
    // than the entry does, so nothing is flushed (Intel SDM vol. 3A, 4.10.4.3).
    arch::entry old{};
    while (!arch::compare_exchange(*slot, old, wanted)) {
        if (old == wanted) return map_result::ok;
        if (old.is_present() && (old.frame(arch::level::page_4k) != from || !writable)) {
            return map_result::shrinks;
        }
    }
    return map_result::ok;
}

}  // namespace

long map_page(long page, long frame, long writable, long, long, long) {
    return static_cast<long>(map_one(gva{static_cast<std::uint64_t>(page)},
                                     gpa{static_cast<std::uint64_t>(frame)}, writable));
}

long map_page_directly(long page, long frame, long writable) {
    arch::guest_area& area = *arch::current_area();
    const std::uint64_t outer = area.in_kernel;
    area.in_kernel = 1;
    const auto result = map_one(gva{static_cast<std::uint64_t>(page)},
                                gpa{static_cast<std::uint64_t>(frame)}, writable);
    area.in_kernel = outer;
    if (!outer && __atomic_load_n(&area.pending, __ATOMIC_RELAXED)) [[unlikely]]
        arch::poll_guest();
    return static_cast<long>(result);
}

}  // namespace xos::vm

extern "C" {
/// Kernel-side services of ring3, by gateway number.
extern const void* const xos_gateway_calls[XOS_GATEWAY_COUNT] = {
    reinterpret_cast<const void*>(&xos::vm::map_page)};
}
