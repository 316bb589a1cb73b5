// Used in both modes.
#include "libxos/vm/views/view_edits.hpp"

#include "libxos/cell/cell.hpp"

namespace xos::vm {

namespace {

using arch::entry;
using arch::entry_flags;

constexpr auto used = entry_flags::accessed | entry_flags::dirty;
/// The flags of an untouched leaf once it has been touched.
constexpr auto touched_flags = flags_of(access::read_write) | memory::accessed_and_dirty;

/// Restores the table of a piece, so that parts of it can be edited.
void open_up(const piece& p, stale_translations& stale) {
    if (!p.v.is_replaced(p.index)) return;
    // The processor may have cached the large translation, and must notice the change.
    stale.add(p.begin);
    split(p);
}

}  // namespace

entry reference_to(const entry* table) {
    using enum entry_flags;
    const auto at = reinterpret_cast<std::uint64_t>(table);
    return {cell::the_cell.space().physical_of(at), present | writable | user | accessed};
}

void split(const piece& p) {
    if (!p.v.is_replaced(p.index)) return;
    entry* table = p.table();
    entry old = arch::load(p.coarse());
    do {
        const auto said = is_untouched(old) ? touched_flags : old.flags();
        const auto flags = (said & ~entry_flags::large) | size_bit(p.v);
        const gpa frame(old.bits & arch::address_mask);
        for (unsigned i = 0; i < 512; i++) {
            const entry part(frame + (std::uint64_t{i} << p.v.fine_shift), flags);
            arch::store(table[i], is_mapped(old) ? part : entry{});
        }
    } while (!arch::compare_exchange(p.coarse(), old, reference_to(table)));
    p.v.tables[p.index].fetch_and(~view::replaced, std::memory_order_release);
}

void replace(const piece& p, entry leaf, stale_translations& stale) {
    p.v.tables[p.index].fetch_or(view::replaced, std::memory_order_release);
    const entry old = arch::exchange(p.coarse(), leaf);
    if (is_untouched(old)) return;
    if (old.is_leaf(p.v.coarser())) {
        stale.add(p.begin);
        return;
    }
    // Translations that a CPU has cached through the table must go, too. One INVLPG drops what was
    // cached on the way (Intel SDM vol. 3A, 4.10.4.1), but each small page has its own translation.
    bool some = false;
    for (unsigned i = 0; i < 512 && !some; i++) some = arch::load(p.table()[i]).is_present();
    if (some)
        stale.add_all();
    else
        stale.add(p.begin);
}

void map_pieces(const view& v, gva begin, std::uint64_t length, gpa first, access a,
                arch::level largest, stale_translations& stale, arch::entry_flags use) {
    const auto flags = flags_of(a) | use;
    const std::uint64_t coarse_mask = (std::uint64_t{1} << v.coarse_shift) - 1;
    const bool may_be_large = v.has_large_leaves() && largest >= v.coarser();
    const std::uint64_t step = std::uint64_t{1} << v.fine_shift;
    const auto small_flags = flags | size_bit(v);
    gpa frame = first;
    for_each_piece(v, begin, length, [&](const piece& p) {
        if (may_be_large && p.whole() && (frame.value & coarse_mask) == 0) {
            replace(p, entry(frame, flags | entry_flags::large), stale);
            frame = frame + p.length;
            return;
        }
        open_up(p, stale);
        entry* slot = p.table() + p.first();
        gva page = p.begin;
        for (const entry* const end = slot + p.count(); slot < end; slot++) {
            if (arch::exchange(*slot, entry(frame, small_flags)).is_present()) stale.add(page);
            frame = frame + step;
            page = page + step;
        }
    });
}

void map_untouched_range(const view& v, gva begin, std::uint64_t length, gpa first,
                         stale_translations& stale) {
    for_each_piece(v, begin, length, [&](const piece& p) {
        const gpa frame = first + (p.begin - begin);
        if (!p.whole() || !frame.is_aligned(p.length)) {
            map_range(v, p.begin, p.length, frame, access::read_write, v.fine(), stale);
            return;
        }
        // The table that the leaf replaces holds only zeros. What a processor has cached on the way
        // there ends with the fault of the first touch (Intel SDM vol. 3A, 4.10.4.1).
        v.tables[p.index].fetch_or(view::replaced, std::memory_order_release);
        arch::store(p.coarse(), entry(frame, entry_flags::large | held | untouched));
    });
}

bool make_present(const view& v, gva page) {
    const std::uint64_t i = v.piece_of(page);
    if (!v.is_replaced(i)) return false;
    entry old = arch::load(*v.coarse[i]);
    if (!is_untouched(old)) return false;
    const entry present(gpa(old.bits & arch::address_mask), touched_flags | entry_flags::large);
    return arch::compare_exchange(*v.coarse[i], old, present) || old.is_present();
}

void unmap_pieces(const view& v, gva begin, std::uint64_t length, bool release,
                  stale_translations& stale) {
    const std::uint64_t step = std::uint64_t{1} << v.fine_shift;
    for_each_piece(v, begin, length, [&](const piece& p) {
        if (p.whole() && v.is_replaced(p.index) && !release) {
            const bool was_touched = !is_untouched(arch::load(p.coarse()));
            for (unsigned i = 0; was_touched && i < 512; i++) arch::store(p.table()[i], entry{});
            const entry old = arch::exchange(p.coarse(), reference_to(p.table()));
            v.tables[p.index].fetch_and(~view::replaced, std::memory_order_release);
            if (old.is_present()) stale.add(p.begin);
            return;
        }
        open_up(p, stale);
        entry* slot = p.table() + p.first();
        gva page = p.begin;
        for (const entry* const end = slot + p.count(); slot < end; slot++) {
            remove(*slot, page, release, stale);
            page = page + step;
        }
    });
}

void protect_pieces(const view& v, gva begin, std::uint64_t length, access a,
                    stale_translations& stale) {
    for_each_piece(v, begin, length, [&](const piece& p) {
        if (p.whole() && v.is_replaced(p.index)) {
            change_access(p.coarse(), a, p.begin, stale);
            return;
        }
        open_up(p, stale);
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) change_access(slot[i], a, p.page(i), stale);
    });
}

void move_range(const view& from, gva begin, std::uint64_t length, const view& to, gva target,
                stale_translations& stale) {
    const std::uint64_t step = std::uint64_t{1} << from.fine_shift;
    for_each_piece(from, begin, length, [&](const piece& p) {
        open_up(p, stale);
        for (unsigned i = 0; i < p.count(); i++) {
            const gva there = target + (p.page(i) - begin);
            open_up({to, to.piece_of(there), there, step}, stale);
            const entry moved = arch::exchange(p.table()[p.first() + i], entry{});
            const entry replaced = arch::exchange(*to.slot_of(there), moved);
            if (moved.is_present()) stale.add(p.page(i));
            if (replaced.is_present()) stale.add(there);
        }
    });
}

void split_range(const view& v, gva begin, std::uint64_t length, stale_translations& stale) {
    for_each_piece(v, begin, length, [&](const piece& p) { open_up(p, stale); });
}

void merge_range(const view& v, gva begin, std::uint64_t length, stale_translations& stale) {
    for_each_piece(v, begin, length, [&](const piece& p) {
        if (!p.whole() || !v.has_large_leaves() || v.is_replaced(p.index)) return;
        const entry first = arch::load(p.table()[0]);
        const std::uint64_t coarse_mask = (std::uint64_t{1} << v.coarse_shift) - 1;
        const std::uint64_t frame = first.bits & arch::address_mask;
        if (!first.is_present() || (frame & coarse_mask) != 0) return;
        entry_flags both = first.flags();
        for (unsigned i = 1; i < 512; i++) {
            const entry next = arch::load(p.table()[i]);
            const auto differing = (next.flags() ^ first.flags()) & ~used;
            const std::uint64_t expected = frame + (std::uint64_t{i} << v.fine_shift);
            if (arch::any(differing) || (next.bits & arch::address_mask) != expected) return;
            both = both | next.flags();
        }
        replace(p, entry(gpa{frame}, both | entry_flags::large), stale);
    });
}

}  // namespace xos::vm
