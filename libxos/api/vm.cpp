#include <cerrno>
#include <vector>
#include <xos/cell.hpp>
#include <xos/vm.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/api/gateway.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views.hpp"

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
    }
    return "unknown";
}

bool gigabyte_leaves() {
    return cell::the_cell.caps.gigabyte_pages;
}

gva reserve(std::size_t bytes, leaf smallest) {
    if (!started()) api::raise(EPERM, "vm::reserve() called before start()");
    if (smallest < leaf::page_4k || smallest > leaf::page_1g)
        api::raise(EINVAL, "vm::reserve(): unknown leaf size");
    if (smallest == leaf::page_1g && !gigabyte_leaves())
        api::raise(EINVAL, "vm::reserve(): this machine has no 1 GiB leaves for guests");
    struct request {
        std::size_t bytes;
        arch::level smallest;
        gva begin;
        base::outcome failed;
    } r{bytes, static_cast<arch::level>(smallest), {}, {}};
    // Slots and reservations are Linux's business, so in host mode.
    host_call(
        [](void* argument) {
            auto& r = *static_cast<request*>(argument);
            r.failed = reserve_frames(api::frame_arena_bytes());
            if (r.failed.ok()) r.failed = reserve_view(r.bytes, r.smallest, r.begin);
        },
        &r);
    if (!r.failed.ok()) api::raise(r.failed);
    return r.begin;
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

struct batch::list {
    std::vector<edit> edits;
    std::size_t failed = 0;
};

batch::batch() : list_(std::make_unique<list>()) {}
batch::~batch() = default;
batch::batch(batch&&) noexcept = default;
batch& batch::operator=(batch&&) noexcept = default;

void batch::map(gva begin, std::size_t bytes, gpa frame, access a, leaf largest) {
    list_->edits.push_back(
        {edit_kind::map, a, static_cast<std::uint32_t>(largest), 0, begin, bytes, frame.value});
}
void batch::map_unused(gva begin, std::size_t bytes, gpa frame, access a, leaf largest) {
    list_->edits.push_back(
        {edit_kind::map, a, static_cast<std::uint32_t>(largest), 1, begin, bytes, frame.value});
}
void batch::map_new(gva begin, std::size_t bytes, access a) {
    list_->edits.push_back({edit_kind::map_new, a, 1, 0, begin, bytes, 0});
}
void batch::unmap(gva begin, std::size_t bytes) {
    list_->edits.push_back({edit_kind::unmap, access::none, 1, 0, begin, bytes, 0});
}
void batch::unmap_and_free(gva begin, std::size_t bytes) {
    list_->edits.push_back({edit_kind::unmap, access::none, 1, 1, begin, bytes, 0});
}
void batch::protect(gva begin, std::size_t bytes, access a) {
    list_->edits.push_back({edit_kind::protect, a, 1, 0, begin, bytes, 0});
}
void batch::move(gva from, std::size_t bytes, gva to) {
    list_->edits.push_back({edit_kind::move, access::none, 1, 0, from, bytes, to.value});
}
void batch::split(gva begin, std::size_t bytes) {
    list_->edits.push_back({edit_kind::split, access::none, 1, 0, begin, bytes, 0});
}
void batch::merge(gva begin, std::size_t bytes) {
    list_->edits.push_back({edit_kind::merge, access::none, 1, 0, begin, bytes, 0});
}

std::size_t batch::size() const noexcept {
    return list_->edits.size();
}
void batch::clear() noexcept {
    list_->edits.clear();
}
std::size_t batch::failed() const noexcept {
    return list_->failed;
}

map_result batch::commit() noexcept {
    const auto& edits = list_->edits;
    api::touch(edits.data(), edits.size() * sizeof(edit));
    edit_request r{edits.data(), edits.size(), 0};
    const auto result =
        static_cast<map_result>(gateway_call(gateway_commit, reinterpret_cast<long>(&r)));
    list_->failed = r.failed;
    return result;
}

long scan(gva begin, std::size_t bytes, usage what, bool clear, std::uint64_t* bitmap) noexcept {
    const auto flag = what == usage::dirty ? arch::entry_flags::dirty : arch::entry_flags::accessed;
    const view* v = the_views.find(begin);
    if (!v) return static_cast<long>(map_result::not_reserved);
    // In stretches, so that signals and other editors need not wait for all of it.
    const std::size_t stretch = std::size_t{1} << (v->fine_shift + 18);
    long found = 0;
    for (std::size_t at = 0; at < bytes; at += stretch) {
        const std::size_t part = bytes - at < stretch ? bytes - at : stretch;
        std::uint64_t* words = bitmap + (at >> v->fine_shift) / 64;
        api::touch(words, ((part >> v->fine_shift) + 63) / 64 * 8);
        scan_request r{begin + at, part, words, static_cast<std::uint64_t>(flag), clear, 0};
        const long result = gateway_call(gateway_scan, reinterpret_cast<long>(&r));
        if (result < 0) return result;
        found += static_cast<long>(r.found);
    }
    return found;
}

}  // namespace xos::vm
