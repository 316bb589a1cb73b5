#include <algorithm>
#include <memory>
#include <xos/cell.hpp>
#include <xos/vm.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/api/gateway.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views/frame_pool.hpp"
#include "libxos/vm/views/services.hpp"
#include "libxos/vm/views/views.hpp"

namespace xos::vm {

using api::gateway_call;

const char* to_string(map_result r) noexcept {
    switch (r) {
        case map_result::ok:
            return "ok";
        case map_result::not_reserved:
            return "the range is not in one view";
        case map_result::misaligned:
            return "an address or length is not a multiple of the leaf size";
        case map_result::shrinks:
            return "something else is mapped there, or with more permission";
        case map_result::not_mapped:
            return "nothing is mapped there";
        case map_result::too_large:
            return "a large leaf covers the page: split it first";
        case map_result::no_frames:
            return "the frame arena has too few frames left";
        case map_result::bad_frame:
            return "a frame lies beyond the vCPU's physical width";
        case map_result::overlap:
            return "a move onto itself";
        case map_result::bad_option:
            return "a leaf size or an access that this view cannot have";
        case map_result::not_inside:
            return "the call is made outside: enter() first";
    }
    return "unknown";
}

bool gigabyte_leaves() {
    return cell::the_cell.caps.gigabyte_pages;
}

gva reserve(std::size_t bytes, leaf smallest) {
    if (!started()) api::raise(errc::not_started, "vm::reserve() called before start()");
    if (smallest < leaf::page_4k || smallest > leaf::page_1g)
        api::raise(errc::bad_argument, "vm::reserve(): unknown leaf size");
    if (smallest == leaf::page_1g && !gigabyte_leaves())
        api::raise(errc::bad_argument,
                   "vm::reserve(): this machine has no 1 GiB leaves for guests");
    gva begin;
    // Host mode is needed because slots and reservations are Linux's business.
    const base::outcome failed = host_call([&] {
        cell::the_cell.guard.hides = true;
        if (auto none = reserve_frames(api::frame_arena_bytes()); !none.ok()) return none;
        return reserve_view(bytes, static_cast<arch::level>(smallest), begin);
    });
    if (!failed.ok()) api::raise(failed);
    return begin;
}

gpa allocate_frame() noexcept {
    return the_frames.ready() ? the_frames.allocate() : gpa{0};
}

bool free_frame(gpa frame) noexcept {
    if (!the_frames.owns(frame)) return false;
    the_frames.free(frame);
    return true;
}

void* frame_data(gpa frame) noexcept {
    return the_frames.data(frame);
}

map_result map(gva page, gpa frame, access a) noexcept {
    const long at = static_cast<long>(page.value), from = static_cast<long>(frame.value);
    const long wanted = static_cast<long>(a);
    if (cell::the_cell.is_ring3()) [[unlikely]] {
        return static_cast<map_result>(gateway_call(gateway_map, at, from, wanted));
    }
    return static_cast<map_result>(map_page_directly(at, from, wanted));
}

map_result protect(gva page, access a) noexcept {
    const long at = static_cast<long>(page.value), wanted = static_cast<long>(a);
    if (cell::the_cell.is_ring3()) [[unlikely]] {
        return static_cast<map_result>(gateway_call(gateway_protect, at, wanted));
    }
    return static_cast<map_result>(protect_page_directly(at, wanted));
}

translation query(gva address) noexcept {
    query_request r{address, {}};
    gateway_call(gateway_query, reinterpret_cast<long>(&r));
    return r.found;
}

/// Like a vector, except that adding an edit writes nothing twice, and that it makes room for the
/// next edit at once.
struct batch::list {
    static constexpr std::size_t least = 8;

    std::unique_ptr<edit[]> edits = std::make_unique<edit[]>(least);
    edit *next = edits.get(), *end = next + least;
    std::size_t failed = 0;

    std::size_t count() const { return static_cast<std::size_t>(next - edits.get()); }

    [[gnu::always_inline]] void add(edit_kind kind, access allowed, gva begin, std::uint64_t length,
                                    std::uint64_t target = 0, std::uint32_t largest = 1,
                                    std::uint32_t option = 0) {
        edit& e = *next++;
        e.kind = kind;
        e.allowed = allowed;
        e.largest = largest;
        e.option = option;
        e.begin = begin;
        e.length = length;
        e.target = target;
        if (next == end) [[unlikely]]
            grow();
    }
    [[gnu::noinline, gnu::cold]] void grow() {
        const std::size_t held = count();
        next--;  // not added if there is no memory
        auto larger = std::make_unique<edit[]>(2 * held);
        std::copy_n(edits.get(), held, larger.get());
        edits = std::move(larger);
        next = edits.get() + held;
        end = next + held;
    }
};

batch::batch() : list_(std::make_unique<list>()) {}
batch::~batch() = default;
batch::batch(batch&&) noexcept = default;
batch& batch::operator=(batch&&) noexcept = default;

void batch::map(gva begin, std::size_t bytes, gpa frame, access a, leaf largest) {
    list_->add(edit_kind::map, a, begin, bytes, frame.value, static_cast<std::uint32_t>(largest));
}
void batch::map_unused(gva begin, std::size_t bytes, gpa frame, access a, leaf largest) {
    list_->add(edit_kind::map, a, begin, bytes, frame.value, static_cast<std::uint32_t>(largest),
               1);
}
void batch::map_new(gva begin, std::size_t bytes, access a) {
    list_->add(edit_kind::map_new, a, begin, bytes);
}
void batch::unmap(gva begin, std::size_t bytes) {
    list_->add(edit_kind::unmap, access::none, begin, bytes);
}
void batch::unmap_and_free(gva begin, std::size_t bytes) {
    list_->add(edit_kind::unmap, access::none, begin, bytes, 0, 1, 1);
}
void batch::protect(gva begin, std::size_t bytes, access a) {
    list_->add(edit_kind::protect, a, begin, bytes);
}
void batch::move(gva from, std::size_t bytes, gva to) {
    list_->add(edit_kind::move, access::none, from, bytes, to.value);
}
void batch::split(gva begin, std::size_t bytes) {
    list_->add(edit_kind::split, access::none, begin, bytes);
}
void batch::merge(gva begin, std::size_t bytes) {
    list_->add(edit_kind::merge, access::none, begin, bytes);
}

std::size_t batch::size() const noexcept {
    return list_->count();
}
void batch::clear() noexcept {
    list_->next = list_->edits.get();
}
std::size_t batch::failed() const noexcept {
    return list_->failed;
}

map_result batch::commit() noexcept {
    const edit* const edits = list_->edits.get();
    api::touch(edits, list_->count() * sizeof(edit));
    edit_request r{edits, list_->count(), 0};
    const auto result =
        static_cast<map_result>(gateway_call(gateway_commit, reinterpret_cast<long>(&r)));
    list_->failed = r.failed;
    return result;
}

scan_result scan(gva begin, std::size_t bytes, usage what, bool clear,
                 std::uint64_t* bitmap) noexcept {
    const auto flag = what == usage::dirty ? arch::entry_flags::dirty : arch::entry_flags::accessed;
    const view* v = the_views.find(begin);
    if (!v) return {.result = map_result::not_reserved};
    // Works in stretches, so that signals and other editors do not wait for all of it.
    const std::size_t stretch = std::size_t{1} << (v->fine_shift + 18);
    scan_result all;
    for (std::size_t at = 0; at < bytes; at += stretch) {
        const std::size_t part = bytes - at < stretch ? bytes - at : stretch;
        std::uint64_t* words = bitmap + (at >> v->fine_shift) / 64;
        api::touch(words, ((part >> v->fine_shift) + 63) / 64 * 8);
        scan_request r{begin + at, part, words, static_cast<std::uint64_t>(flag), clear, 0};
        const long result = gateway_call(gateway_scan, reinterpret_cast<long>(&r));
        if (result < 0) return {.result = static_cast<map_result>(result)};
        all.found += r.found;
    }
    return all;
}

}  // namespace xos::vm
