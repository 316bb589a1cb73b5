// Used in both modes.
#include "libxos/paging/range_edits.hpp"

namespace xos::paging {

namespace {

using arch::entry;
using arch::entry_flags;

/// The flags of an untouched leaf once it has been touched.
constexpr auto touched_flags = flags_of(access::read_write) | accessed_and_dirty;

/// Restores the table of a piece. Translations stay the same, so nothing is stale.
void split(const piece& p) {
    if (!p.r.is_replaced(p.index)) return;
    entry* table = p.table();
    entry old = arch::load(p.coarse());
    do {
        const auto said = is_untouched(old) ? touched_flags : old.flags();
        const auto flags = (said & ~entry_flags::large) | p.r.fine_size_bit();
        if (is_mapped(old))
            fill_table(table, {frame_of(old), flags}, std::uint64_t{1} << p.r.fine_shift);
        else
            fill_table(table, {}, 0);
    } while (!arch::compare_exchange(p.coarse(), old, p.r.reference_to(table)));
    p.r.tables[p.index].fetch_and(~table_range::replaced, std::memory_order_release);
}

/// The same, so that parts of it can be edited.
void open_up(const piece& p, stale_pages& stale) {
    if (!p.r.is_replaced(p.index)) return;
    // The processor may have cached the large translation, and must notice the change.
    stale.add(p.begin);
    split(p);
}

/// Replaces the table by a large leaf.
void replace(const piece& p, entry leaf, stale_pages& stale) {
    p.r.tables[p.index].fetch_or(table_range::replaced, std::memory_order_release);
    const entry old = arch::exchange(p.coarse(), leaf);
    if (is_untouched(old)) return;
    if (old.is_leaf(p.r.coarser())) {
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

}  // namespace

void map_pieces(const table_range& r, gva begin, std::uint64_t length, gpa first, access a,
                arch::level largest, stale_pages& stale, arch::entry_flags use) {
    const auto flags = flags_of(a) | use;
    const std::uint64_t coarse_mask = (std::uint64_t{1} << r.coarse_shift) - 1;
    const bool may_be_large = r.has_large_leaves() && largest >= r.coarser();
    const std::uint64_t step = std::uint64_t{1} << r.fine_shift;
    const auto small_flags = flags | r.fine_size_bit();
    gpa frame = first;
    for_each_piece(r, begin, length, [&](const piece& p) {
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

void map_untouched_range(const table_range& r, gva begin, std::uint64_t length, gpa first,
                         stale_pages& stale) {
    for_each_piece(r, begin, length, [&](const piece& p) {
        const gpa frame = first + (p.begin - begin);
        if (!p.whole() || !frame.is_aligned(p.length)) {
            map_range(r, p.begin, p.length, frame, access::read_write, r.fine(), stale);
            return;
        }
        // The table that the leaf replaces holds only zeros. What a processor has cached on the way
        // there ends with the fault of the first touch (Intel SDM vol. 3A, 4.10.4.1).
        r.tables[p.index].fetch_or(table_range::replaced, std::memory_order_release);
        arch::store(p.coarse(), entry(frame, entry_flags::large | held | untouched));
    });
}

bool make_present(const table_range& r, gva page) {
    const std::uint64_t i = r.piece_of(page);
    if (!r.is_replaced(i)) return false;
    entry old = arch::load(*r.coarse[i]);
    if (!is_untouched(old)) return false;
    const entry present(frame_of(old), touched_flags | entry_flags::large);
    return arch::compare_exchange(*r.coarse[i], old, present) || old.is_present();
}

void unmap_pieces(const table_range& r, gva begin, std::uint64_t length, bool release,
                  stale_pages& stale) {
    const std::uint64_t step = std::uint64_t{1} << r.fine_shift;
    for_each_piece(r, begin, length, [&](const piece& p) {
        if (p.whole() && r.is_replaced(p.index) && !release) {
            const bool was_touched = !is_untouched(arch::load(p.coarse()));
            if (was_touched) fill_table(p.table(), {}, 0);
            const entry old = arch::exchange(p.coarse(), r.reference_to(p.table()));
            r.tables[p.index].fetch_and(~table_range::replaced, std::memory_order_release);
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

void protect_pieces(const table_range& r, gva begin, std::uint64_t length, access a,
                    stale_pages& stale) {
    for_each_piece(r, begin, length, [&](const piece& p) {
        if (p.whole() && r.is_replaced(p.index)) {
            change_access(p.coarse(), a, p.begin, stale);
            return;
        }
        open_up(p, stale);
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) change_access(slot[i], a, p.page(i), stale);
    });
}

void move_range(const table_range& from, gva begin, std::uint64_t length, const table_range& to,
                gva target, stale_pages& stale) {
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

void split_range(const table_range& r, gva begin, std::uint64_t length, stale_pages& stale) {
    for_each_piece(r, begin, length, [&](const piece& p) { open_up(p, stale); });
}

void merge_range(const table_range& r, gva begin, std::uint64_t length, stale_pages& stale) {
    for_each_piece(r, begin, length, [&](const piece& p) {
        if (!p.whole() || !r.has_large_leaves() || r.is_replaced(p.index)) return;
        const entry first = arch::load(p.table()[0]);
        const std::uint64_t coarse_mask = (std::uint64_t{1} << r.coarse_shift) - 1;
        const std::uint64_t frame = first.bits & arch::address_mask;
        if (!first.is_present() || (frame & coarse_mask) != 0) return;
        entry_flags both = first.flags();
        for (unsigned i = 1; i < 512; i++) {
            const entry next = arch::load(p.table()[i]);
            const auto differing = (next.flags() ^ first.flags()) & ~accessed_and_dirty;
            const std::uint64_t expected = frame + (std::uint64_t{i} << r.fine_shift);
            if (arch::any(differing) || (next.bits & arch::address_mask) != expected) return;
            both = both | next.flags();
        }
        replace(p, entry(gpa{frame}, both | entry_flags::large), stale);
    });
}

void copy_entries(const table_range& from, const table_range& to, copying how, stale_pages& stale) {
    const auto copy = [&](entry& theirs, entry& ours, gva page) {
        entry old = arch::load(theirs), kept;
        do {
            kept = how == copying::until_written ? until_written(old) : old;
        } while (kept != old && !arch::compare_exchange(theirs, old, kept));
        if (kept != old) stale.add(page);
        arch::store(ours, kept);
    };
    for (std::uint64_t i = 0; i < from.length >> from.coarse_shift; i++) {
        const gva begin = from.begin + (i << from.coarse_shift);
        if (from.is_replaced(i)) {
            to.tables[i].fetch_or(table_range::replaced, std::memory_order_relaxed);
            copy(*from.coarse[i], *to.coarse[i], begin);
            continue;
        }
        arch::store(*to.coarse[i], to.reference_to(to.table(i)));
        for (unsigned n = 0; n < 512; n++) {
            const gva page = begin + (std::uint64_t{n} << from.fine_shift);
            copy(from.table(i)[n], to.table(i)[n], page);
        }
    }
}

std::uint64_t scan_range(const table_range& r, gva begin, std::uint64_t length,
                         const usage_scan& scan, stale_pages& stale) {
    const std::uint64_t wanted = scan.flags;
    std::uint64_t* const bitmap = scan.bitmap;
    const bool clear = scan.clear;
    std::uint64_t at = 0, word = 0, found = 0;
    const auto note_word_end = [&] {
        if ((at & 63) != 0) return;
        bitmap[at / 64 - 1] = word;
        word = 0;
    };
    const auto note = [&](bool is_used) {
        if (is_used) {
            word |= std::uint64_t{1} << (at & 63);
            found++;
        }
        at++;
        note_word_end();
    };
    const auto look = [&](entry& slot, gva page) {
        const entry e = arch::load(slot);
        if (!(e.bits & wanted) || !is_mapped(e)) return false;
        if (clear) {
            arch::clear_flags(slot, static_cast<entry_flags>(wanted));
            stale.add(page);
        }
        return true;
    };
    for_each_piece(r, begin, length, [&](const piece& p) {
        if (r.is_replaced(p.index)) {
            const bool is_used = look(p.coarse(), p.begin);
            for (unsigned i = 0; i < p.count(); i++) note(is_used);
            return;
        }
        // Most pages are unused, so finding the next used one must be fast.
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count();) {
            const std::uint64_t left_of_word = 64 - (at & 63), left = p.count() - i;
            const entry* const end = slot + (left < left_of_word ? left : left_of_word);
            const entry* const start = slot;
            for (; slot < end; slot++) {
                if (!(arch::load(*slot).bits & wanted)) [[likely]]
                    continue;
                const auto n = static_cast<std::uint64_t>(slot - start);
                if (!look(*slot, p.page(i + static_cast<unsigned>(n)))) continue;
                word |= std::uint64_t{1} << ((at + n) & 63);
                found++;
            }
            i += static_cast<unsigned>(end - start);
            at += static_cast<std::uint64_t>(end - start);
            note_word_end();
        }
    });
    if (at & 63) bitmap[at / 64] = word;
    return found;
}

}  // namespace xos::paging
