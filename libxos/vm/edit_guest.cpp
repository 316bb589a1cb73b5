// Kernel side: batches of edits, scans and queries of views.
//
// A batch is checked as a whole before its first change, and after that nothing can fail: tables
// exist, frames have been counted. Runs on the system-call stack under the address space's lock.
#include "libxos/arch/guest_area.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views.hpp"

namespace xos::vm {

namespace {

using arch::entry;
using arch::entry_flags;

constexpr auto used = entry_flags::accessed | entry_flags::dirty;

constexpr std::uint64_t bits_of(entry_flags f) {
    return static_cast<std::uint64_t>(f);
}
entry with_access(entry e, access a) {
    return entry((e.bits & ~bits_of(access_bits)) | bits_of(flags_of(a)));
}

/// A part of a view that one table covers, or less.
struct piece {
    const view& v;
    std::uint64_t index;
    gva begin;
    std::uint64_t length;

    bool whole() const { return length == std::uint64_t{1} << v.coarse_shift; }
    unsigned first() const { return begin.value >> v.fine_shift & 511; }
    unsigned count() const { return static_cast<unsigned>(length >> v.fine_shift); }
    entry* table() const { return v.table(index); }
    entry& coarse() const { return *v.coarse[index]; }
};

template <class F>
void for_each_piece(const view& v, gva begin, std::uint64_t length, F&& f) {
    const std::uint64_t size = std::uint64_t{1} << v.coarse_shift;
    while (length) {
        const std::uint64_t room = size - (begin.value & (size - 1));
        const std::uint64_t part = length < room ? length : room;
        f(piece{v, v.piece_of(begin), begin, part});
        begin = begin + part;
        length -= part;
    }
}

gpa physical_of(const entry* table) {
    return cell::the_cell.space().physical_of(reinterpret_cast<std::uint64_t>(table));
}

entry reference_to(entry* table) {
    using enum entry_flags;
    return {physical_of(table), present | writable | user | accessed};
}

entry_flags size_bit(const view& v) {
    return v.fine_shift == 12 ? entry_flags::none : entry_flags::large;
}

/// Gives the piece its table back. Translates as before, so nothing is flushed.
void split(const piece& p) {
    if (!p.v.is_replaced(p.index)) return;
    entry* table = p.table();
    entry old = arch::load(p.coarse());
    do {
        const auto flags = (old.flags() & ~entry_flags::large) | size_bit(p.v);
        const gpa frame(old.bits & arch::address_mask);
        for (unsigned i = 0; i < 512; i++) {
            arch::store(table[i], is_mapped(old) ? entry(frame + (std::uint64_t{i} << p.v.fine_shift),
                                                         flags)
                                                 : entry{});
        }
    } while (!arch::compare_exchange(p.coarse(), old, reference_to(table)));
    p.v.tables[p.index].fetch_and(~view::replaced, std::memory_order_release);
}

/// Puts a large leaf in the table's place.
void replace(const piece& p, entry leaf, stale_translations& stale) {
    p.v.tables[p.index].fetch_or(view::replaced, std::memory_order_release);
    const entry old = arch::exchange(p.coarse(), leaf);
    if (old.is_leaf(p.v.coarser())) {
        stale.add(p.begin);
        return;
    }
    // What a CPU has cached on its way through the table goes, too: one INVLPG drops that (Intel SDM
    // vol. 3A, 4.10.4.1), but each small page has a translation of its own.
    bool some = false;
    for (unsigned i = 0; i < 512 && !some; i++) some = arch::load(p.table()[i]).is_present();
    if (some)
        stale.add_all();
    else
        stale.add(p.begin);
}

void map_range(const view& v, const edit& e, stale_translations& stale) {
    std::uint64_t frame = e.target;
    for_each_piece(v, e.begin, e.length, [&](const piece& p) {
        const auto flags = flags_of(e.allowed) | memory::accessed_and_dirty;
        const std::uint64_t coarse_mask = (std::uint64_t{1} << v.coarse_shift) - 1;
        if (p.whole() && v.has_large_leaves() && (frame & coarse_mask) == 0 &&
            e.largest >= static_cast<unsigned>(v.coarser())) {
            replace(p, entry(gpa{frame}, flags | entry_flags::large), stale);
            frame += p.length;
            return;
        }
        split(p);
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) {
            const entry wanted(gpa{frame}, flags | size_bit(v));
            if (takes_away(arch::exchange(slot[i], wanted), entry{}))
                stale.add(p.begin + (std::uint64_t{i} << v.fine_shift));
            frame += std::uint64_t{1} << v.fine_shift;
        }
    });
}

void zero_frame(void* at) {
    std::uint64_t words = page_size / 8;
    asm volatile("rep stosq" : "+D"(at), "+c"(words) : "a"(0) : "memory");
}

void map_new(const view& v, const edit& e, stale_translations& stale) {
    for_each_piece(v, e.begin, e.length, [&](const piece& p) {
        split(p);
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) {
            const gpa frame = the_frames.take_aside();
            zero_frame(the_frames.data(frame));
            const entry wanted(frame, flags_of(e.allowed) | memory::accessed_and_dirty);
            if (takes_away(arch::exchange(slot[i], wanted), entry{}))
                stale.add(p.begin + (std::uint64_t{i} << v.fine_shift));
        }
    });
}

void unmap_range(const view& v, const edit& e, stale_translations& stale) {
    for_each_piece(v, e.begin, e.length, [&](const piece& p) {
        if (p.whole() && v.is_replaced(p.index) && !e.release) {
            for (unsigned i = 0; i < 512; i++) arch::store(p.table()[i], entry{});
            arch::exchange(p.coarse(), reference_to(p.table()));
            p.v.tables[p.index].fetch_and(~view::replaced, std::memory_order_release);
            stale.add(p.begin);
            return;
        }
        if (v.is_replaced(p.index)) stale.add(p.begin);
        split(p);
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) {
            entry old = arch::load(slot[i]);
            if (!is_mapped(old)) continue;
            const auto rest = [&](entry was) {
                return e.release ? entry(was.frame(v.fine()), leaving) : entry{};
            };
            while (!arch::compare_exchange(slot[i], old, rest(old))) {
            }
            if (old.is_present()) stale.add(p.begin + (std::uint64_t{i} << v.fine_shift));
        }
    });
}

/// After the flush: nobody can reach the frames any more.
void release_frames(const view& v, const edit& e) {
    for_each_piece(v, e.begin, e.length, [&](const piece& p) {
        if (v.is_replaced(p.index)) return;
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) {
            const entry was = arch::load(slot[i]);
            if (!was.has(leaving)) continue;
            arch::store(slot[i], entry{});
            const gpa frame(was.bits & arch::address_mask);
            if (the_frames.owns(frame)) the_frames.free(frame);
        }
    });
}

void change_access(entry& slot, access a, gva page, stale_translations& stale) {
    entry old = arch::load(slot), wanted;
    do {
        if (!is_mapped(old)) return;
        wanted = with_access(old, a);
        if (wanted == old) return;
    } while (!arch::compare_exchange(slot, old, wanted));
    if (takes_away(old, wanted)) stale.add(page);
}

void protect_range(const view& v, const edit& e, stale_translations& stale) {
    for_each_piece(v, e.begin, e.length, [&](const piece& p) {
        if (p.whole() && v.is_replaced(p.index)) {
            change_access(p.coarse(), e.allowed, p.begin, stale);
            return;
        }
        if (v.is_replaced(p.index)) stale.add(p.begin);
        split(p);
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) {
            change_access(slot[i], e.allowed, p.begin + (std::uint64_t{i} << v.fine_shift), stale);
        }
    });
}

void move_range(const view& from, const view& to, const edit& e, stale_translations& stale) {
    const std::uint64_t step = std::uint64_t{1} << from.fine_shift;
    for_each_piece(from, e.begin, e.length, [&](const piece& p) {
        if (from.is_replaced(p.index)) stale.add(p.begin);
        split(p);
        for (unsigned i = 0; i < p.count(); i++) {
            const gva source = p.begin + i * step;
            const gva target{e.target + (source - e.begin)};
            split({to, to.piece_of(target), target, step});
            const entry moved = arch::exchange(p.table()[p.first() + i], entry{});
            const entry replaced = arch::exchange(*to.slot_of(target), moved);
            if (moved.is_present()) stale.add(source);
            if (replaced.is_present()) stale.add(target);
        }
    });
}

void merge_range(const view& v, const edit& e, stale_translations& stale) {
    for_each_piece(v, e.begin, e.length, [&](const piece& p) {
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

bool is_access(access a) {
    const auto bits = static_cast<unsigned>(a);
    return bits == 0 || (bits <= 7 && bits & 1);
}

struct needs {
    std::uint64_t frames = 0;
};

map_result check(const edit& e, needs& needed) {
    const view* v = the_views.find(e.begin);
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
            if (e.release && v->fine_shift != 12) return map_result::bad_option;
            return map_result::ok;
        case edit_kind::move: {
            const gva to{e.target};
            const view* target = the_views.find(to);
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

void apply(const edit& e, stale_translations& stale) {
    const view& v = *the_views.find(e.begin);
    switch (e.kind) {
        case edit_kind::map:
            return map_range(v, e, stale);
        case edit_kind::map_new:
            return map_new(v, e, stale);
        case edit_kind::unmap:
            return unmap_range(v, e, stale);
        case edit_kind::protect:
            return protect_range(v, e, stale);
        case edit_kind::move:
            return move_range(v, *the_views.find(gva{e.target}), e, stale);
        case edit_kind::split:
            for_each_piece(v, e.begin, e.length, [&](const piece& p) {
                if (v.is_replaced(p.index)) stale.add(p.begin);
                split(p);
            });
            return;
        case edit_kind::merge:
            return merge_range(v, e, stale);
    }
}

}  // namespace

long commit_edits(long argument, long, long, long, long, long) {
    auto& request = *reinterpret_cast<edit_request*>(argument);
    memory::guest_edit editing(cell::the_cell.space().lock());
    needs needed;
    for (std::uint64_t i = 0; i < request.count; i++) {
        const map_result r = check(request.edits[i], needed);
        if (r != map_result::ok) {
            request.failed = i;
            return static_cast<long>(r);
        }
    }
    request.failed = request.count;
    if (needed.frames && !the_frames.set_aside(needed.frames)) {
        return static_cast<long>(map_result::no_frames);
    }
    stale_translations stale;
    bool release = false;
    for (std::uint64_t i = 0; i < request.count; i++) {
        apply(request.edits[i], stale);
        release |= request.edits[i].kind == edit_kind::unmap && request.edits[i].release;
    }
    stale.flush();
    if (release) {
        for (std::uint64_t i = 0; i < request.count; i++) {
            const edit& e = request.edits[i];
            if (e.kind == edit_kind::unmap && e.release) release_frames(*the_views.find(e.begin), e);
        }
    }
    return 0;
}

long scan_used(long argument, long, long, long, long, long) {
    auto& request = *reinterpret_cast<scan_request*>(argument);
    const view* v = the_views.find(request.begin);
    if (!v || request.length > v->length - (request.begin - v->begin))
        return static_cast<long>(map_result::not_reserved);
    const std::uint64_t step = std::uint64_t{1} << v->fine_shift;
    if (!request.begin.is_aligned(step) || request.length % step != 0)
        return static_cast<long>(map_result::misaligned);

    memory::guest_edit editing(cell::the_cell.space().lock());
    const auto wanted = static_cast<entry_flags>(request.flags);
    const std::uint64_t wanted_bits = request.flags;
    std::uint64_t at = 0, word = 0, found = 0;
    stale_translations stale;
    const auto note = [&](bool is_used) {
        if (is_used) {
            word |= std::uint64_t{1} << (at & 63);
            found++;
        }
        if ((++at & 63) == 0) {
            request.bitmap[at / 64 - 1] = word;
            word = 0;
        }
    };
    const auto look = [&](entry& slot, gva page) {
        const entry e = arch::load(slot);
        if (!(e.bits & wanted_bits) || !is_mapped(e)) return false;
        if (request.clear) {
            arch::clear_flags(slot, wanted);
            stale.add(page);
        }
        return true;
    };
    for_each_piece(*v, request.begin, request.length, [&](const piece& p) {
        if (v->is_replaced(p.index)) {
            // A large leaf at an edge counts, and is cleared, as a whole.
            const bool is_used = look(p.coarse(), p.begin);
            for (unsigned i = 0; i < p.count(); i++) note(is_used);
            return;
        }
        entry* slot = p.table() + p.first();
        for (unsigned i = 0; i < p.count(); i++) {
            note(look(slot[i], p.begin + (std::uint64_t{i} << v->fine_shift)));
        }
    });
    if (at & 63) request.bitmap[at / 64] = word;
    stale.flush();
    request.found = found;
    return 0;
}

long query_page(long argument, long, long, long, long, long) {
    auto& request = *reinterpret_cast<query_request*>(argument);
    request.found = {};
    const view* v = the_views.find(request.address);
    if (!v) return 0;
    memory::guest_edit editing(cell::the_cell.space().lock());
    const std::uint64_t index = v->piece_of(request.address);
    const bool large = v->is_replaced(index);
    const entry e = arch::load(large ? *v->coarse[index] : *v->slot_of(request.address));
    if (!is_mapped(e)) return 0;
    request.found.mapped = true;
    request.found.allowed = access_of(e);
    request.found.size = static_cast<leaf>(large ? v->coarser() : v->fine());
    request.found.frame = gpa(e.bits & arch::address_mask);
    request.found.accessed = e.has(entry_flags::accessed);
    request.found.dirty = e.has(entry_flags::dirty);
    return 0;
}

}  // namespace xos::vm
