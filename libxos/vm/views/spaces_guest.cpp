#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views/direct.hpp"
#include "libxos/vm/views/frame_pool.hpp"
#include "libxos/vm/views/services.hpp"
#include "libxos/vm/views/spaces.hpp"

extern "C" void xos_load_root_pvm(std::uint64_t root);

namespace xos::vm {

using arch::entry;
using arch::entry_flags;
using paging::copied_on_write;
using paging::copying;
using paging::once_written;

other_space the_spaces[arch::guest_area::max_spaces];

namespace {

constexpr std::uint64_t page_levels_below_root = 39;

memory::address_space& main_space() {
    return cell::the_cell.space();
}

unsigned root_index(const view& v) {
    return v.begin.value >> page_levels_below_root & 511;
}

/// The numbers of all spaces in use are below this. Under the lock.
unsigned spaces_used = 1;

void zero_table(entry* table) {
    for (unsigned i = 0; i < 512; i++) arch::store(table[i], entry{});
}

void release(entry* table) {
    zero_table(table);
    main_space().release_table(table);
}

other_space* used_space(long number) {
    if (number < 1 || number >= static_cast<long>(arch::guest_area::max_spaces)) return nullptr;
    other_space& s = the_spaces[number];
    return s.in_use ? &s : nullptr;
}

/// Whether another space maps the frame at the same page.
bool is_shared(const view& shared, const view& mine, gva page, gpa frame) {
    const auto maps_it = [&](const view& v) {
        const entry e = v.as_small_leaf(page);
        return is_mapped(e) && frame_of(e) == frame;
    };
    if (&mine != &shared && maps_it(shared)) return true;
    for (unsigned n = 1; n < spaces_used; n++) {
        const other_space& s = the_spaces[n];
        for (unsigned i = 0; s.in_use && i < s.view_count; i++) {
            if (s.shared[i] == &shared && &s.own[i] != &mine && maps_it(s.own[i])) return true;
        }
    }
    return false;
}

/// Tables taken in advance, so that nothing fails half way.
class spare_tables {
  public:
    bool take(std::uint64_t count) {
        for (; count; count--) {
            const gpa table = frames_.allocate();
            if (!table.value) return false;
            list_.push(table, first_word);
        }
        return true;
    }
    entry* next() { return frames_.table(list_.pop(first_word)); }
    ~spare_tables() {
        while (!list_.is_empty()) frames_.release(list_.pop(first_word));
    }

  private:
    static std::uint64_t* first_word(gpa table) {
        return &main_space().frames().table(table)->bits;
    }

    memory::arena_frames& frames_ = main_space().frames();
    base::page_list list_;
};

std::uint64_t pieces_of(const view& v) {
    return v.length >> v.coarse_shift;
}
bool has_middle_tables(const view& v) {
    return v.coarser() != arch::level::page_1g;
}

/// Makes the lists, and a table for every piece; false if there is no memory for the lists.
bool make_tables(view& v, const view& shared, spare_tables& spares) {
    const std::uint64_t pieces = pieces_of(shared);
    const hva lists = cell::the_cell.arena.allocate_kernel(pieces * 16);
    if (!lists.value) return false;
    v = shared;
    v.tables = reinterpret_cast<std::atomic<std::uint64_t>*>(lists.value);
    v.coarse = reinterpret_cast<entry**>(lists.value + pieces * 8);
    for (std::uint64_t i = 0; i < pieces; i++) {
        v.tables[i].store(reinterpret_cast<std::uint64_t>(spares.next()),
                          std::memory_order_relaxed);
    }
    return true;
}

/// Makes the tables above the view's own, down to those that hold its `coarse` entries. No other
/// view is in its gigabytes, so the tables below the topmost one start empty.
void make_upper_tables(other_space& s, view& v, unsigned slot, spare_tables& spares) {
    const unsigned at = root_index(v);
    entry* upper = nullptr;
    for (unsigned i = 0; i < s.view_count; i++) {
        if (root_index(s.own[i]) == at) upper = s.upper[i];
    }
    if (!upper) {
        const entry* of_main = main_space().table_of(arch::load(main_space().root_table()[at]));
        upper = spares.next();
        for (unsigned i = 0; i < 512; i++)
            arch::store(upper[i], arch::load(const_cast<entry&>(of_main[i])));
        arch::store(s.root[at], v.reference_to(upper));
    }
    s.upper[slot] = upper;
    for (std::uint64_t i = 0; i < pieces_of(v); i++) {
        const gva begin = v.begin + (i << v.coarse_shift);
        entry& gigabyte = upper[begin.value >> 30 & 511];
        if (!has_middle_tables(v)) {
            v.coarse[i] = &gigabyte;
            continue;
        }
        if (begin.is_aligned(huge_page_size)) arch::store(gigabyte, v.reference_to(spares.next()));
        v.coarse[i] = &main_space().table_of(arch::load(gigabyte))[begin.value >> 21 & 511];
    }
}

/// Returns frames of the pool that only this space still maps.
void free_own_frames(const view& v, const view& shared) {
    if (v.fine_shift != 12) return;
    for (std::uint64_t offset = 0; offset < v.length; offset += page_size) {
        const gva page = v.begin + offset;
        const entry e = v.as_small_leaf(page);
        if (!is_mapped(e) || !the_frames.owns(frame_of(e))) continue;
        if (!is_shared(shared, v, page, frame_of(e))) the_frames.free(frame_of(e));
    }
}

void drop_view(other_space& s, unsigned n, bool last_of_upper) {
    view& v = s.own[n];
    for (std::uint64_t at = 0; at < v.length; at += huge_page_size) {
        entry& gigabyte = s.upper[n][(v.begin + at).value >> 30 & 511];
        if (has_middle_tables(v)) release(main_space().table_of(arch::load(gigabyte)));
        arch::store(gigabyte, entry{});
    }
    for (std::uint64_t i = 0; i < pieces_of(v); i++) release(v.table(i));
    if (last_of_upper) release(s.upper[n]);
}

bool runs_somewhere(std::uint64_t number) {
    auto& cell = cell::the_cell;
    for (unsigned i = 0; i < cell.contexts.count; i++) {
        if (cell.contexts.areas[i]->space == number) return true;
    }
    return false;
}

}  // namespace

void share_new_tables() {
    const entry* main_root = main_space().root_table();
    const auto complete = [](entry* slots, const entry* from) {
        for (unsigned i = 0; i < 512; i++) {
            const entry e = arch::load(const_cast<entry&>(from[i]));
            if (e.is_present() && !arch::load(slots[i]).is_present()) arch::store(slots[i], e);
        }
    };
    for (other_space& s : the_spaces) {
        if (!s.in_use) continue;
        complete(s.root, main_root);
        for (unsigned n = 0; n < s.view_count; n++) {
            const entry below = arch::load(const_cast<entry&>(main_root[root_index(s.own[n])]));
            complete(s.upper[n], main_space().table_of(below));
        }
    }
}

const view* own_view(const view& shared, std::uint64_t space) {
    const other_space& s = the_spaces[space];
    for (unsigned i = 0; i < s.view_count; i++) {
        if (s.shared[i] == &shared) return &s.own[i];
    }
    return &shared;
}

long space_make(long, long, long, long, long, long) {
    memory::guest_edit editing(main_space().lock());
    for (unsigned n = 1; n < arch::guest_area::max_spaces; n++) {
        other_space& s = the_spaces[n];
        if (s.in_use) continue;
        s.root = main_space().new_table();
        if (!s.root) return -base::error::nomem;
        s.view_count = 0;
        s.in_use = true;
        if (n >= spaces_used) spaces_used = n + 1;
        main_space().on_new_tables = share_new_tables;
        share_new_tables();
        return n;
    }
    return -base::error::nospc;
}

long space_end(long number, long, long, long, long, long) {
    memory::guest_edit editing(main_space().lock());
    other_space* s = used_space(number);
    if (!s) return -base::error::inval;
    if (runs_somewhere(static_cast<std::uint64_t>(number))) return -base::error::busy;
    for (unsigned n = 0; n < s->view_count; n++) free_own_frames(s->own[n], *s->shared[n]);
    // No vCPU walks these tables: none has them as its root, and this count makes tagged TLBs
    // forget them first.
    __atomic_fetch_add(&the_flushes, 1, __ATOMIC_SEQ_CST);
    while (s->view_count) {
        const unsigned n = --s->view_count;
        bool last = true;
        for (unsigned i = 0; i < n; i++) last &= s->upper[i] != s->upper[n];
        drop_view(*s, n, last);
    }
    release(s->root);
    s->in_use = false;
    return 0;
}

long space_separate(long number, long address, long on_write, long, long, long) {
    memory::guest_edit editing(main_space().lock());
    other_space* s = used_space(number);
    if (!s) return -base::error::inval;
    const view* shared = the_views.find(gva{static_cast<std::uint64_t>(address)});
    if (!shared || !shared->has_large_leaves()) return -base::error::inval;
    // An arena shares its gigabytes with others, and its frames have its addresses.
    if (shared->is_arena) return -base::error::inval;
    if (own_view(*shared, static_cast<std::uint64_t>(number)) != shared) return -base::error::busy;
    if (s->view_count == other_space::max_views) return -base::error::nospc;
    const unsigned slot = s->view_count;
    view& v = s->own[slot];
    spare_tables spares;
    const std::uint64_t gigabytes = (shared->length + huge_page_size - 1) / huge_page_size;
    if (!spares.take(pieces_of(*shared) + gigabytes + 1) || !make_tables(v, *shared, spares))
        return -base::error::nomem;
    make_upper_tables(*s, v, slot, spares);
    stale_pages stale;
    // A vCPU may be in the space: the flush makes it forget its old way to the view.
    stale.add_all();
    copy_entries(*shared, v, on_write ? copying::until_written : copying::as_it_is, stale);
    s->shared[slot] = shared;
    s->view_count++;
    flush(stale);
    return 0;
}

long space_switch(long number, long, long, long, long, long) {
    arch::guest_area& area = *arch::current_area();
    std::uint64_t root;
    {
        memory::guest_edit editing(main_space().lock());
        if (number != 0 && !used_space(number)) return -base::error::inval;
        const auto previous = static_cast<long>(area.space);
        if (previous == number) return previous;
        area.flushes_seen[previous] = the_flushes;
        area.space = static_cast<std::uint64_t>(number);
        root = number ? main_space()
                            .physical_of(reinterpret_cast<std::uint64_t>(the_spaces[number].root))
                            .value
                      : main_space().root().value;
        if (cell::the_cell.guest.tags_translations) root |= static_cast<std::uint64_t>(number);
        area.root = root;
        number = previous;
        if (cell::the_cell.current == mode::pvm) {
            xos_load_root_pvm(root);
        } else {
            constexpr std::uint64_t keep_translations = std::uint64_t{1} << 63;
            const bool kept = cell::the_cell.guest.tags_translations &&
                              area.flushes_seen[area.space] == the_flushes;
            asm volatile("movq %0, %%cr3"
                         :
                         : "r"(kept ? root | keep_translations : root)
                         : "memory");
        }
    }
    return number;
}

namespace {

/// Inlined into the handler that calls it.
[[gnu::always_inline]] inline long copy_written(arch::guest_area& area, long address) {
    const gva page{static_cast<std::uint64_t>(address)};
    if (!page.is_aligned(page_size)) return static_cast<long>(map_result::misaligned);
    memory::guest_edit editing(main_space().lock());
    const view *v = view_at_hand(area, page), *shared = v;
    if (!v) [[unlikely]] {
        v = look_up(area, page);
        if (!v) return static_cast<long>(map_result::not_reserved);
        shared = area.space ? the_views.find(page) : v;
    }
    if (v->fine_shift != 12) return static_cast<long>(map_result::bad_option);
    entry* where = v->slot_of_4k(page);
    if (!where) [[unlikely]] {
        stale_pages stale;
        split_range(*v, page, page_size, stale);
        flush(stale);
        where = v->slot_of_4k(page);
    }
    entry& slot = *where;
    const entry old = arch::load(slot);
    if (!is_mapped(old)) return static_cast<long>(map_result::not_mapped);
    if (!old.has(copied_on_write)) {
        // Another thread was faster, or the page was never writable.
        const bool done = old.is_present() && old.has(entry_flags::writable);
        return static_cast<long>(done ? map_result::ok : map_result::shrinks);
    }
    if (!is_shared(*shared, *v, page, frame_of(old))) {
        arch::store(slot, once_written(old, frame_of(old)));
        return 0;
    }
    const gpa fresh = the_frames.allocate();
    if (!fresh.value) return static_cast<long>(map_result::no_frames);
    base::copy_words(the_frames.data(fresh), reinterpret_cast<const void*>(page.value), page_size);
    arch::store(slot, once_written(old, fresh));
    flush_page(page);
    return 0;
}

}  // namespace

long copy_on_write(long address, long, long, long, long, long) {
    return copy_written(*arch::current_area(), address);
}

long copy_on_write_directly(long address) noexcept {
    arch::guest_area& area = *arch::current_area();
    const std::uint64_t outer = become_kernel(area);
    const long result = copy_written(area, address);
    return end_kernel(area, outer, static_cast<map_result>(result));
}

}  // namespace xos::vm
