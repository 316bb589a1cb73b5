// Builds a 4-level tree of page tables that a CPU may be walking meanwhile. Where an entry is edited
// again and again, table_range.hpp finds it without a walk, and range_edits.hpp edits it.
//
//     page_tables tables(frames, {.physical_bits = 40, .largest_leaf = arch::level::page_2m});
//     tables.create();
//     tables.map(gva(0x400000), gpa(0x200000), 4 << 20, protection::writable | protection::user,
//                arch::level::page_2m);
//
// Every edit first counts the table pages it will need and reserves them, then edits without a
// way to fail: an edit that returns an error has changed nothing, not even for an instant.
//
// Runs in any mode, also at ring 0 in the guest: no libc, no allocation but the frame source's.
// Edits of one tree exclude one another; the caller locks. A walk by the CPU needs no lock.
// slot_at() and query() may run beside any edit. Tables are never taken down.
//
// Lengths are in bytes. Addresses and lengths are multiples of 4 KiB, and a range lies in one
// canonical half. No edit flushes a TLB.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>

#include "libxos/paging/entry_rules.hpp"
#include "libxos/paging/paging_types.hpp"
#include "libxos/paging/table_frames.hpp"

namespace xos::paging {

template <frame_source FrameSource>
class page_tables {
  public:
    /// `source` must outlive the object. Frames beyond `physical_bits` are refused: the CPU would
    /// take a reserved-bit fault on them.
    page_tables(FrameSource& source, cpu_limits limits)
        : frames_(source, limits.physical_bits),
          largest_leaf_(std::min(limits.largest_leaf, arch::level::page_1g)) {}
    page_tables(const page_tables&) = delete;
    page_tables& operator=(const page_tables&) = delete;

    /// Starts an empty tree. `occupied` if there is one already.
    [[nodiscard]] status create() {
        if (root_ != gpa{}) return status::occupied;
        const status reserved = frames_.reserve(1);
        if (reserved == status::ok) root_ = frames_.take();
        return reserved;
    }

    /// What CR3 holds; gpa{0} before create().
    gpa root() const { return root_; }

    /// Maps `length` bytes with the largest leaves, up to `largest`, that the alignment of both
    /// addresses allows and that replace no existing table. Needs no flush: entries only go from
    /// not present to present. `preset` may name accessed and dirty bits to set at once, which saves
    /// the CPU from setting them.
    [[nodiscard]] status map(gva start, gpa frame, std::uint64_t length, protection p,
                             arch::level largest,
                             arch::entry_flags preset = arch::entry_flags::none) {
        if (const status s = check(start, length); s != status::ok) return s;
        if (!frame.is_aligned(page_size)) return status::misaligned;
        if (!frames_.fits_width(frame, length)) return status::frame_too_wide;
        const window w = window_of(start, length);
        return build(w, {.leaves = std::min(largest, largest_leaf_),
                         .frame_offset = frame.value - w.first,
                         .bits = p & protection::all,
                         .preset = preset & accessed_and_dirty});
    }

    /// Builds the tables down to `lowest`, so that slot_at() finds a slot of that level everywhere
    /// in the range. `occupied` if a larger leaf is in the way. Needs no flush.
    [[nodiscard]] status ensure_tables(gva start, std::uint64_t length,
                                       arch::level lowest = arch::level::page_4k) {
        if (const status s = check(start, length); s != status::ok) return s;
        return build(window_of(start, length), {.leaves = no_leaves, .lowest = lowest});
    }

    /// Removes what is mapped in the range; larger leaves at the edges are split. The tables stay. A
    /// TLB may still hold translations.
    [[nodiscard]] status unmap(gva start, std::uint64_t length) {
        return edit_leaves(start, length,
                           [](arch::entry& slot) { arch::exchange(slot, arch::entry{}); });
    }

    /// Gives all leaves in the range exactly this protection; holes stay holes. Larger leaves at
    /// the edges are split. A TLB may still hold translations that allow more.
    [[nodiscard]] status protect(gva start, std::uint64_t length, protection p) {
        const std::uint64_t chosen = mask_of(p & protection::all);
        return edit_leaves(start, length, [&](arch::entry& slot) {
            arch::entry old = arch::load(slot);
            arch::entry wanted;
            do {
                wanted = arch::entry((old.bits & ~mask_of(protection::all)) | chosen);
            } while (wanted != old && !arch::compare_exchange(slot, old, wanted));
        });
    }

    /// The leaf that translates this address, which need not be aligned.
    std::optional<leaf_mapping> query(gva address) const {
        if (root_ == gpa{} || !arch::is_canonical(address)) return std::nullopt;
        const place found = locate(address);
        if (!found.value.is_present()) return std::nullopt;
        return leaf_of(found.value, found.at, address.value & linear_mask);
    }

    /// Calls f(const leaf_mapping&) for each leaf that overlaps the range, in ascending order.
    template <class F>
    status for_each_leaf(gva start, std::uint64_t length, F&& f) const {
        if (const status s = check(start, length); s != status::ok) return s;
        visit(root_slots(), arch::level::root, window_of(start, length),
              [&](arch::entry&, const leaf_mapping& l) { f(l); });
        return status::ok;
    }

    /// The entry of this level on the way to the address, present or not; nullptr where the tables
    /// do not go down to it.
    arch::entry* slot_at(gva address, arch::level wanted) const {
        if (root_ == gpa{} || !arch::is_canonical(address)) return nullptr;
        arch::entry* slots = root_slots();
        for (arch::level at = arch::level::root; at != wanted; at = arch::below(at)) {
            const arch::entry e = arch::load(slots[arch::index_of(address, at)]);
            if (!e.is_present() || e.is_leaf(at)) return nullptr;
            slots = table_at(e, at);
        }
        return &slots[arch::index_of(address, wanted)];
    }

  private:
    static constexpr std::uint64_t linear_mask = arch::size_of(arch::level::root) * 512 - 1;
    static constexpr arch::level no_leaves{0};

    /// A range of the low 48 bits of linear addresses: its end never wraps, unlike a gva's.
    struct window {
        std::uint64_t first;
        std::uint64_t end;

        bool is_empty() const { return first == end; }
        /// The part, from the start, that one entry of this level covers; empty if the window is.
        window head(arch::level at) const {
            const std::uint64_t size = arch::size_of(at);
            return {first, std::min((first & ~(size - 1)) + size, end)};
        }
        window after(window part) const { return {part.end, end}; }
    };

    struct plan {
        arch::level leaves;
        arch::level lowest = arch::level::page_4k;  ///< of the tables, where no leaf is mapped
        std::uint64_t frame_offset = 0;
        protection bits = protection::none;
        arch::entry_flags preset = arch::entry_flags::none;

        gpa frame_of(window w) const { return gpa(w.first + frame_offset); }
        bool is_leaf(arch::level at, window w) const {
            const std::uint64_t size = arch::size_of(at);
            return at <= leaves && w.end - w.first == size && frame_of(w).is_aligned(size);
        }
    };

    struct place {
        arch::entry* slot;
        arch::level at;
        arch::entry value;
    };

    static constexpr std::uint64_t mask_of(protection p) { return static_cast<std::uint64_t>(p); }
    static std::size_t index_of(std::uint64_t linear, arch::level at) {
        return arch::index_of(gva(linear), at);
    }
    static window window_of(gva start, std::uint64_t length) {
        const std::uint64_t first = start.value & linear_mask;
        return {first, first + length};
    }
    static leaf_mapping leaf_of(arch::entry e, arch::level at, std::uint64_t linear) {
        const std::uint64_t base = linear & ~(arch::size_of(at) - 1);
        const bool upper_half = base > linear_mask / 2;
        return {gva(upper_half ? base | ~linear_mask : base), e.frame(at), at, e.flags()};
    }
    status check(gva start, std::uint64_t length) const {
        if (root_ == gpa{}) return status::not_mapped;
        if (!start.is_aligned(page_size) || length % page_size != 0) return status::misaligned;
        if (!arch::is_canonical(start)) return status::non_canonical;
        const std::uint64_t half = linear_mask / 2 + 1;
        const std::uint64_t room = half - (start.value & (half - 1));
        return length <= room ? status::ok : status::non_canonical;
    }
    arch::entry* table_at(arch::entry e, arch::level at) const {
        return frames_.slots_of(e.frame(at));
    }
    arch::entry* root_slots() const { return frames_.slots_of(root_); }

    place locate(gva address) const {
        arch::entry* slots = root_slots();
        for (arch::level at = arch::level::root;; at = arch::below(at)) {
            arch::entry& slot = slots[arch::index_of(address, at)];
            const arch::entry e = arch::load(slot);
            if (at == arch::level::page_4k || !e.is_present() || e.is_leaf(at))
                return {&slot, at, e};
            slots = table_at(e, at);
        }
    }

    status build(window w, const plan& p) {
        std::uint64_t missing = 0;
        if (!count_missing(root_slots(), arch::level::root, w, p, missing)) return status::occupied;
        if (const status s = frames_.reserve(missing); s != status::ok) return s;
        fill(root_slots(), arch::level::root, w, p);
        return status::ok;
    }

    /// False if the range is occupied. `slots` is null below a table that does not exist yet.
    bool count_missing(arch::entry* slots, arch::level at, window w, const plan& p,
                       std::uint64_t& missing) const {
        if (p.leaves == no_leaves && at == p.lowest) return true;
        if (at == arch::level::page_4k && slots == nullptr) return true;
        for (window part = w.head(at); !part.is_empty(); part = w.after(part).head(at)) {
            const arch::entry e =
                slots == nullptr ? arch::entry{} : arch::load(slots[index_of(part.first, at)]);
            if (e.is_leaf(at)) return false;
            if (!e.is_present() && p.is_leaf(at, part)) continue;
            if (!e.is_present()) ++missing;
            arch::entry* const next = e.is_present() ? table_at(e, at) : nullptr;
            if (!count_missing(next, arch::below(at), part, p, missing)) return false;
        }
        return true;
    }

    void fill(arch::entry* slots, arch::level at, window w, const plan& p) {
        if (p.leaves == no_leaves && at == p.lowest) return;
        for (window part = w.head(at); !part.is_empty(); part = w.after(part).head(at)) {
            arch::entry& slot = slots[index_of(part.first, at)];
            arch::entry e = arch::load(slot);
            if (!e.is_present() && p.is_leaf(at, part)) {
                arch::store(slot, arch::entry{leaf_entry(p.frame_of(part), p.bits, at).bits |
                                              static_cast<std::uint64_t>(p.preset)});
                continue;
            }
            if (!e.is_present()) {
                e = table_reference(frames_.take());
                arch::store(slot, e);
            }
            fill(table_at(e, at), arch::below(at), part, p);
        }
    }

    /// Calls f(slot, leaf) for each leaf that overlaps the window.
    template <class F>
    void visit(arch::entry* slots, arch::level at, window w, F&& f) const {
        for (window part = w.head(at); !part.is_empty(); part = w.after(part).head(at)) {
            arch::entry& slot = slots[index_of(part.first, at)];
            const arch::entry e = arch::load(slot);
            if (e.is_leaf(at))
                f(slot, leaf_of(e, at, part.first));
            else if (e.is_present())
                visit(table_at(e, at), arch::below(at), part, f);
        }
    }

    /// Splits at both ends, then calls edit(slot) for each leaf in the range.
    template <class Edit>
    status edit_leaves(gva start, std::uint64_t length, Edit&& edit) {
        if (const status s = check(start, length); s != status::ok) return s;
        const window w = window_of(start, length);
        if (w.is_empty()) return status::ok;
        if (const status s =
                frames_.reserve(splits_needed(w.first, 0) + splits_needed(w.end, w.first));
            s != status::ok)
            return s;
        split_at(w.first);
        split_at(w.end);
        visit(root_slots(), arch::level::root, w,
              [&](arch::entry& slot, const leaf_mapping&) { edit(slot); });
        return status::ok;
    }

    /// How many leaves split_at(boundary) splits once split_at(earlier) is done.
    std::uint64_t splits_needed(std::uint64_t boundary, std::uint64_t earlier) const {
        const place found = locate(gva(boundary));
        if (!found.value.is_leaf(found.at)) return 0;
        std::uint64_t count = 0;
        for (arch::level at = found.at; boundary % arch::size_of(at) != 0; at = arch::below(at)) {
            const bool split_before =
                earlier % arch::size_of(at) != 0 &&
                earlier >> arch::shift_of(at) == boundary >> arch::shift_of(at);
            if (!split_before) ++count;
        }
        return count;
    }

    void split_at(std::uint64_t boundary) {
        for (;;) {
            const place found = locate(gva(boundary));
            if (!found.value.is_leaf(found.at) || boundary % arch::size_of(found.at) == 0) return;
            split(found);
        }
    }

    /// Replaces a leaf by a table of leaves that translate identically: needs no flush by itself.
    void split(place leaf) {
        const arch::level child = arch::below(leaf.at);
        const auto no_size =
            child == arch::level::page_4k ? arch::entry_flags::large : arch::entry_flags::none;
        const gpa table = frames_.take();
        arch::entry old = leaf.value;
        do {
            const arch::entry part(frame_of(old), old.flags() & ~no_size);
            fill_table(frames_.slots_of(table), part, arch::size_of(child));
        } while (!arch::compare_exchange(*leaf.slot, old, table_reference(table)));
    }

    table_frames<FrameSource> frames_;
    arch::level largest_leaf_;
    gpa root_;
};

}  // namespace xos::paging
