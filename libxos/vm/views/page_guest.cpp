// Kernel side: one 4 KiB page of a view, without an exit and without a lock.
#include "libxos/arch/guest_area.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views/direct.hpp"
#include "libxos/vm/views/services.hpp"
#include "libxos/vm/views/spaces.hpp"

namespace xos::vm {

using paging::change_access_now;
using paging::map_or_widen;

namespace {

struct place {
    arch::entry* slot;
    map_result problem;
};

[[gnu::always_inline]] inline place find(const view* v, gva page) {
    if (!page.is_aligned(page_size)) return {nullptr, map_result::misaligned};
    if (!v) return {nullptr, map_result::not_reserved};
    if (v->fine_shift != 12) return {nullptr, map_result::bad_option};
    return {v->slot_of_4k(page), map_result::too_large};
}

[[gnu::always_inline]] inline map_result map_one(const view* v, gva page, gpa frame, access a) {
    const place at = find(v, page);
    if (!at.slot) return at.problem;
    if (!frame.is_aligned(page_size)) return map_result::misaligned;
    return map_or_widen(*at.slot, frame, a) ? map_result::ok : map_result::shrinks;
}

/// @param shrank  set when a TLB may hold more than the entry now allows.
[[gnu::always_inline]] inline map_result protect_one(const view* v, gva page, access a,
                                                     bool& shrank) {
    const place at = find(v, page);
    if (!at.slot) return at.problem;
    if (!change_access_now(*at.slot, a, shrank)) return map_result::not_mapped;
    return map_result::ok;
}

/// Out of line, so that the usual way makes no call and uses only scratch registers.
[[gnu::noinline, gnu::cold]] long end_kernel_with_flush(arch::guest_area& area, std::uint64_t outer,
                                                        gva page) {
    flush_page(page);
    return end_kernel(area, outer, map_result::ok);
}

/// Whether one instruction flushes a page.
bool is_only_cpu() {
    const auto& cell = cell::the_cell;
    return __atomic_load_n(&cell.contexts.count, __ATOMIC_ACQUIRE) < 2 && cell.current != mode::pvm;
}

gva gva_of(long value) {
    return gva{static_cast<std::uint64_t>(value)};
}
gpa gpa_of(long value) {
    return gpa{static_cast<std::uint64_t>(value)};
}

}  // namespace

long map_page(long page, long frame, long wanted, long, long, long) {
    return static_cast<long>(
        map_one(find_view(gva_of(page)), gva_of(page), gpa_of(frame), static_cast<access>(wanted)));
}

long protect_page(long page, long wanted, long, long, long, long) {
    bool shrank = false;
    const map_result result =
        protect_one(find_view(gva_of(page)), gva_of(page), static_cast<access>(wanted), shrank);
    if (shrank) flush_page(gva_of(page));
    return static_cast<long>(result);
}

namespace {

[[gnu::noinline]] long map_page_of_other_view(long page, long frame, long wanted) {
    arch::guest_area& area = *arch::current_area();
    const std::uint64_t outer = become_kernel(area);
    const view* v = look_up(area, gva_of(page));
    return end_kernel(area, outer,
                      map_one(v, gva_of(page), gpa_of(frame), static_cast<access>(wanted)));
}

[[gnu::noinline]] long protect_page_of_other_view(long page, long wanted) {
    arch::guest_area& area = *arch::current_area();
    const std::uint64_t outer = become_kernel(area);
    const view* v = look_up(area, gva_of(page));
    bool shrank = false;
    const map_result result = protect_one(v, gva_of(page), static_cast<access>(wanted), shrank);
    if (shrank) flush_page(gva_of(page));
    return end_kernel(area, outer, result);
}

}  // namespace

long map_page_directly(long page, long frame, long wanted) noexcept {
    arch::guest_area& area = *arch::current_area();
    const view* v = view_at_hand(area, gva_of(page));
    if (!v) [[unlikely]]
        return map_page_of_other_view(page, frame, wanted);
    const std::uint64_t outer = become_kernel(area);
    return end_kernel(area, outer,
                      map_one(v, gva_of(page), gpa_of(frame), static_cast<access>(wanted)));
}

long protect_page_directly(long page, long wanted) noexcept {
    arch::guest_area& area = *arch::current_area();
    const view* v = view_at_hand(area, gva_of(page));
    if (!v) [[unlikely]]
        return protect_page_of_other_view(page, wanted);
    const std::uint64_t outer = become_kernel(area);
    bool shrank = false;
    const map_result result = protect_one(v, gva_of(page), static_cast<access>(wanted), shrank);
    if (shrank) {
        if (!is_only_cpu()) [[unlikely]]
            return end_kernel_with_flush(area, outer, gva_of(page));
        __atomic_fetch_add(&the_flushes, 1, __ATOMIC_SEQ_CST);
        invalidate(gva_of(page));
    }
    return end_kernel(area, outer, result);
}

}  // namespace xos::vm
