// Kernel side: batches of edits, scans and queries of views.
//
// A batch is checked as a whole before its first change. After that nothing can fail: tables exist,
// frames have been counted. Runs on the system-call stack under the address space's lock.
#include "libxos/arch/guest_area.hpp"
#include "libxos/base/bytes.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views/frame_pool.hpp"
#include "libxos/vm/views/services.hpp"
#include "libxos/vm/views/spaces.hpp"

namespace xos::vm {

namespace {

void map_new(const view& v, const edit& e, stale_pages& stale) {
    for (std::uint64_t offset = 0; offset < e.length; offset += page_size) {
        const gpa frame = the_frames.take_aside();
        base::zero_words(the_frames.data(frame), page_size);
        map_range(v, e.begin + offset, page_size, frame, e.allowed, arch::level::page_4k, stale);
    }
}

bool is_access(access a) {
    const auto bits = static_cast<unsigned>(a);
    return bits == 0 || (bits <= 7 && bits & 1);
}

struct needs {
    std::uint64_t frames = 0;
};

/// Remembers the last view: most edits of a batch are in the same one.
class view_finder {
  public:
    const view* find(gva a) {
        if (!last_ || a - last_->begin >= last_->length) [[unlikely]]
            last_ = find_view(a);
        return last_;
    }

  private:
    const view* last_ = nullptr;
};

[[gnu::always_inline]] inline map_result check(const edit& e, view_finder& views, needs& needed) {
    const view* v = views.find(e.begin);
    if (!v) return map_result::not_reserved;
    const std::uint64_t step = std::uint64_t{1} << v->fine_shift;
    if (!e.begin.is_aligned(step) || e.length % step != 0) return map_result::misaligned;
    if (e.length > v->length - (e.begin - v->begin)) return map_result::not_reserved;
    if (!is_access(e.allowed)) return map_result::bad_option;
    const std::uint64_t width = std::uint64_t{1} << cell::the_cell.caps.physical_bits;
    switch (e.kind) {
        case edit_kind::map:
            if (e.target % step != 0) return map_result::misaligned;
            if (e.target >= width || e.length > width - e.target) return map_result::bad_frame;
            if (e.largest < static_cast<unsigned>(v->fine()) || e.largest > 3)
                return map_result::bad_option;
            return map_result::ok;
        case edit_kind::map_new:
            if (v->fine_shift != 12) return map_result::bad_option;
            needed.frames += e.length / page_size;
            return map_result::ok;
        case edit_kind::unmap:
            if (e.option && v->fine_shift != 12) return map_result::bad_option;
            return map_result::ok;
        case edit_kind::move: {
            const gva to{e.target};
            const view* target = find_view(to);
            if (!target || e.length > target->length - (to - target->begin))
                return map_result::not_reserved;
            if (target->fine_shift != v->fine_shift) return map_result::bad_option;
            if (!to.is_aligned(step)) return map_result::misaligned;
            const bool apart = to - e.begin >= e.length && e.begin - to >= e.length;
            return apart || e.length == 0 ? map_result::ok : map_result::overlap;
        }
        case edit_kind::protect:
        case edit_kind::split:
        case edit_kind::merge:
            return map_result::ok;
    }
    return map_result::bad_option;
}

[[gnu::always_inline]] inline void apply(const edit& e, const view& v, stale_pages& stale) {
    switch (e.kind) {
        case edit_kind::map:
            return map_range(v, e.begin, e.length, gpa{e.target}, e.allowed,
                             static_cast<arch::level>(e.largest), stale,
                             e.option ? arch::entry_flags::none : paging::accessed_and_dirty);
        case edit_kind::map_new:
            return map_new(v, e, stale);
        case edit_kind::unmap:
            return unmap_range(v, e.begin, e.length, e.option, stale);
        case edit_kind::protect:
            return protect_range(v, e.begin, e.length, e.allowed, stale);
        case edit_kind::move:
            return move_range(v, e.begin, e.length, *find_view(gva{e.target}), gva{e.target},
                              stale);
        case edit_kind::split:
            return split_range(v, e.begin, e.length, stale);
        case edit_kind::merge:
            return merge_range(v, e.begin, e.length, stale);
    }
}

/// Detects a batch that gives many 4 KiB pages of one view the same access, as garbage collectors
/// and checkpointers do. Returns the view, everything checked, or null.
const view* view_of_alike_protections(const edit_request& request) {
    const edit first = request.edits[0];
    const view* const v = find_view(first.begin);
    if (!v || v->fine_shift != 12 || first.kind != edit_kind::protect ||
        first.length != page_size || !is_access(first.allowed))
        return nullptr;
    const gva begin = v->begin;
    const std::uint64_t length = v->length;
    const edit* const end = request.edits + request.count;
    for (const edit* e = request.edits; e < end; e++) {
        if (e->kind != edit_kind::protect || e->allowed != first.allowed ||
            e->length != page_size || !e->begin.is_aligned(page_size) || e->begin - begin >= length)
            return nullptr;
    }
    return v;
}

void protect_alike(const view& v, const edit_request& request, stale_pages& stale) {
    const access wanted = request.edits[0].allowed;
    const edit* const end = request.edits + request.count;
    for (const edit* e = request.edits; e < end; e++) {
        if (arch::entry* slot = v.slot_of_4k(e->begin)) [[likely]]
            change_access(*slot, wanted, e->begin, stale);
        else
            protect_range(v, e->begin, page_size, wanted, stale);
    }
}

}  // namespace

long commit_edits(long argument, long, long, long, long, long) {
    auto& request = *reinterpret_cast<edit_request*>(argument);
    memory::guest_edit editing(cell::the_cell.space().lock());
    if (const view* v = request.count > 1 ? view_of_alike_protections(request) : nullptr) {
        stale_pages stale;
        protect_alike(*v, request, stale);
        flush(stale);
        request.failed = request.count;
        return 0;
    }
    needs needed;
    view_finder views;
    for (std::uint64_t i = 0; i < request.count; i++) {
        const map_result r = check(request.edits[i], views, needed);
        if (r != map_result::ok) {
            request.failed = i;
            return static_cast<long>(r);
        }
    }
    request.failed = request.count;
    if (needed.frames && !the_frames.set_aside(needed.frames)) {
        return static_cast<long>(map_result::no_frames);
    }
    stale_pages stale;
    bool release = false;
    for (std::uint64_t i = 0; i < request.count; i++) {
        apply(request.edits[i], *views.find(request.edits[i].begin), stale);
        release |= request.edits[i].kind == edit_kind::unmap && request.edits[i].option;
    }
    flush(stale);
    if (release) {
        for (std::uint64_t i = 0; i < request.count; i++) {
            const edit& e = request.edits[i];
            if (e.kind != edit_kind::unmap || !e.option) continue;
            for_each_leaving(*find_view(e.begin), e.begin, e.length, [](gpa frame) {
                if (the_frames.owns(frame)) the_frames.free(frame);
            });
        }
    }
    return 0;
}

long scan_used(long argument, long, long, long, long, long) {
    auto& request = *reinterpret_cast<scan_request*>(argument);
    const view* v = find_view(request.begin);
    if (!v || request.length > v->length - (request.begin - v->begin))
        return static_cast<long>(map_result::not_reserved);
    const std::uint64_t step = std::uint64_t{1} << v->fine_shift;
    if (!request.begin.is_aligned(step) || request.length % step != 0)
        return static_cast<long>(map_result::misaligned);

    memory::guest_edit editing(cell::the_cell.space().lock());
    stale_pages stale;
    request.found = scan_range(
        *v, request.begin, request.length,
        {.flags = request.flags, .clear = request.clear, .bitmap = request.bitmap}, stale);
    flush(stale);
    return 0;
}

long query_page(long argument, long, long, long, long, long) {
    auto& request = *reinterpret_cast<query_request*>(argument);
    request.found = {};
    const view* v = find_view(request.address);
    if (!v) return 0;
    memory::guest_edit editing(cell::the_cell.space().lock());
    const bool large = v->is_replaced(v->piece_of(request.address));
    const arch::entry e = v->covering(request.address);
    if (!is_mapped(e)) return 0;
    request.found.mapped = true;
    request.found.allowed = access_of(e);
    request.found.size = static_cast<leaf>(large ? v->coarser() : v->fine());
    request.found.frame = frame_of(e);
    request.found.accessed = e.has(arch::entry_flags::accessed);
    request.found.dirty = e.has(arch::entry_flags::dirty);
    return 0;
}

}  // namespace xos::vm
