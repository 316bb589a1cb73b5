// Kernel side: one 4 KiB page of a view, without an exit and without a lock.
#include "libxos/arch/guest_area.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/spaces.hpp"

namespace xos::vm {

namespace {

struct place {
    arch::entry* slot;
    map_result problem;
};

[[gnu::always_inline]] inline place find(gva page) {
    if (!page.is_aligned(page_size)) return {nullptr, map_result::misaligned};
    const view* v = find_view(page);
    if (!v) return {nullptr, map_result::not_reserved};
    if (v->fine_shift != 12) return {nullptr, map_result::bad_option};
    return {v->slot_of(page), map_result::too_large};
}

[[gnu::always_inline]] inline map_result map_one(gva page, gpa frame, access a) {
    const place at = find(page);
    if (!at.slot) return at.problem;
    if (!frame.is_aligned(page_size)) return map_result::misaligned;
    const arch::entry wanted(frame, flags_of(a) | memory::accessed_and_dirty);
    // Not present to present, or to more permission: no translation that a TLB holds allows more
    // than the entry does, so nothing is flushed (Intel SDM vol. 3A, 4.10.4.3).
    arch::entry old{};
    while (!arch::compare_exchange(*at.slot, old, wanted)) {
        if (old.has(leaving)) {
            old = {};
            asm volatile("pause");
            continue;
        }
        if (is_mapped(old) &&
            (old.frame(arch::level::page_4k) != frame || takes_away(old, wanted))) {
            return map_result::shrinks;
        }
    }
    return map_result::ok;
}

[[gnu::always_inline]] inline map_result protect_one(gva page, access a) {
    const place at = find(page);
    if (!at.slot) return at.problem;
    const auto chosen = flags_of(a);
    arch::entry old = arch::load(*at.slot), wanted;
    do {
        if (!is_mapped(old)) return map_result::not_mapped;
        wanted = arch::entry((old.bits & ~static_cast<std::uint64_t>(access_bits)) |
                             static_cast<std::uint64_t>(chosen));
    } while (!arch::compare_exchange(*at.slot, old, wanted));
    if (takes_away(old, wanted)) flush_page(page);
    return map_result::ok;
}

/// Ordinary code that must not be interrupted by a signal in between.
template <class F>
[[gnu::always_inline]] inline long as_kernel(F&& f) {
    arch::guest_area& area = *arch::current_area();
    const std::uint64_t outer = area.in_kernel;
    area.in_kernel = 1;
    const map_result result = f();
    area.in_kernel = outer;
    if (!outer && __atomic_load_n(&area.pending, __ATOMIC_RELAXED)) [[unlikely]]
        arch::poll_guest();
    return static_cast<long>(result);
}

gva gva_of(long value) {
    return gva{static_cast<std::uint64_t>(value)};
}
gpa gpa_of(long value) {
    return gpa{static_cast<std::uint64_t>(value)};
}

}  // namespace

long map_page(long page, long frame, long wanted, long, long, long) {
    return static_cast<long>(map_one(gva_of(page), gpa_of(frame), static_cast<access>(wanted)));
}

long protect_page(long page, long wanted, long, long, long, long) {
    return static_cast<long>(protect_one(gva_of(page), static_cast<access>(wanted)));
}

long map_page_directly(long page, long frame, long wanted) {
    return as_kernel(
        [&] { return map_one(gva_of(page), gpa_of(frame), static_cast<access>(wanted)); });
}

long protect_page_directly(long page, long wanted) {
    return as_kernel([&] { return protect_one(gva_of(page), static_cast<access>(wanted)); });
}

}  // namespace xos::vm
