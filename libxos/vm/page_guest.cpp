// Kernel side: one 4 KiB page of a view, without an exit and without a lock.
#include "libxos/arch/guest_area.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/spaces.hpp"

namespace xos::vm {

namespace {

/// Why `slot_of` has found none.
[[gnu::noinline, gnu::cold]] map_result no_slot(gva page) {
    if (!page.is_aligned(page_size)) return map_result::misaligned;
    const view* v = find_view(page);
    if (!v) return map_result::not_reserved;
    return v->fine_shift == 12 ? map_result::too_large : map_result::bad_option;
}

/// The entry of a 4 KiB page, or null.
[[gnu::always_inline]] inline arch::entry* slot_of(gva page) {
    const view* v = the_views.find(page);
    if (!v || v->fine_shift != 12 || page.value % page_size != 0) [[unlikely]]
        return nullptr;
    if (const std::uint64_t space = arch::current_area()->space) [[unlikely]]
        v = own_view(*v, space);
    const std::uint64_t tagged = v->tables[(page - v->begin) >> 21].load(std::memory_order_relaxed);
    if (tagged & view::replaced) [[unlikely]]
        return nullptr;
    return reinterpret_cast<arch::entry*>(tagged) + (page.value >> 12 & 511);
}

/// flags_of() by value: the way to a mapping is counted in instructions.
constexpr std::uint64_t flags_by_access[8] = {
    static_cast<std::uint64_t>(flags_of(access::none)),
    static_cast<std::uint64_t>(flags_of(access::read)),
    static_cast<std::uint64_t>(held),
    static_cast<std::uint64_t>(flags_of(access::read_write)),
    static_cast<std::uint64_t>(held),
    static_cast<std::uint64_t>(flags_of(access::read_execute)),
    static_cast<std::uint64_t>(held),
    static_cast<std::uint64_t>(flags_of(access::read_write_execute)),
};

[[gnu::noinline, gnu::cold]] map_result map_over(arch::entry& slot, arch::entry old,
                                                 arch::entry wanted) {
    for (;;) {
        if (old.has(leaving)) {
            asm volatile("pause");
            old = arch::load(slot);
            continue;
        }
        const bool same_frame = ((old.bits ^ wanted.bits) & arch::address_mask) == 0;
        if (is_mapped(old) && (!same_frame || takes_away(old, wanted))) return map_result::shrinks;
        if (arch::compare_exchange(slot, old, wanted)) return map_result::ok;
    }
}

[[gnu::always_inline]] inline map_result map_one(gva page, gpa frame, access a) {
    arch::entry* slot = slot_of(page);
    if (!slot) [[unlikely]]
        return no_slot(page);
    if (frame.value % page_size != 0) [[unlikely]]
        return map_result::misaligned;
    const auto used = static_cast<std::uint64_t>(memory::accessed_and_dirty);
    const arch::entry wanted(frame.value | flags_by_access[static_cast<unsigned>(a) & 7] | used);
    // Not present to present, or to more permission: no translation that a TLB holds allows more
    // than the entry does, so nothing is flushed (Intel SDM vol. 3A, 4.10.4.3).
    arch::entry old{};
    if (arch::compare_exchange(*slot, old, wanted)) [[likely]]
        return map_result::ok;
    return map_over(*slot, old, wanted);
}

[[gnu::always_inline]] inline map_result protect_one(gva page, access a) {
    arch::entry* slot = slot_of(page);
    if (!slot) [[unlikely]]
        return no_slot(page);
    const std::uint64_t chosen = flags_by_access[static_cast<unsigned>(a) & 7];
    arch::entry old = arch::load(*slot), wanted;
    do {
        if (!is_mapped(old)) return map_result::not_mapped;
        wanted = arch::entry((old.bits & ~static_cast<std::uint64_t>(access_bits)) | chosen);
    } while (!arch::compare_exchange(*slot, old, wanted));
    if (takes_away(old, wanted)) flush_page(page);
    return map_result::ok;
}

/// Ordinary code that must not be interrupted by a signal in between.
template <class F>
[[gnu::always_inline]] inline long as_kernel(F&& f) {
    arch::guest_area& area = *arch::current_area();
    const std::uint64_t outer = area.in_kernel;
    area.in_kernel = 1;
    const auto result = static_cast<long>(f());
    area.in_kernel = outer;
    if (!outer && __atomic_load_n(&area.pending, __ATOMIC_RELAXED)) [[unlikely]]
        arch::poll_guest();
    return result;
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
