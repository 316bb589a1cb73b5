// Kernel side: extents of an arena, without an exit unless it has to grow.
#include "libxos/arch/guest_area.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/arena.hpp"
#include "libxos/vm/view_edits.hpp"

namespace xos::vm {

namespace {

/// So many pages are zeroed without letting go of the lock.
constexpr std::uint64_t few_pages = 16;
/// From here on it is quicker to let Linux take the pages and give others at the first touch.
constexpr std::uint64_t many_pages = 1024;

void discard_from_guest(gva begin, std::uint64_t bytes) {
    constexpr long dont_need = 4;
    long result = 0;
    arch::in_host_from_kernel([&] {
        result = base::raw_syscall(__NR_madvise, static_cast<long>(begin.value),
                                   static_cast<long>(bytes), dont_need);
    });
    if (result != 0) zero_memory(begin, bytes);  // locked memory stays
}

}  // namespace

gva arena::take(std::uint64_t bytes, memory::buddy::preference first) {
    const std::uint64_t pages = bytes / page_size;
    if (pages == 0) return gva{0};
    if (first == memory::buddy::preference::dirty) {
        for (recent_extent& r : recent_) {
            if (r.count != pages) continue;
            r.count = 0;
            return address_of(r.first);
        }
    }
    return take_new(pages, first);
}

gva arena::take_new(std::uint64_t pages, memory::buddy::preference first) {
    if (pages > std::uint64_t{1} << memory::buddy::max_order) return gva{0};
    const unsigned order = pages == 1 ? 0 : 64 - static_cast<unsigned>(__builtin_clzl(pages - 1));
    auto page = pages_.allocate(order, first);
    if (!page && forget_recent()) page = pages_.allocate(order, first);
    if (!page) return gva{0};
    // What is free in front stays usable: the rest of the block goes back as it was.
    const std::uint64_t rest = (std::uint64_t{1} << order) - pages;
    if (rest) pages_.free(*page + pages, rest, pages_.is_clean(*page + pages, rest));
    return address_of(*page);
}

bool arena::give_back(gva at, std::uint64_t bytes, bool clean) {
    if (!at.is_aligned(page_size) || bytes % page_size != 0 || !contains(at, bytes)) return false;
    const std::uint64_t first = page_of(at), pages = bytes / page_size;
    if (!clean && options_.free_memory == visibility::allocated_only) {
        return keep_recent(first, pages);
    }
    return pages_.free(first, pages, clean);
}

/// Merging a page with all its buddies, only to split them again for the next page, would cost more
/// than zeroing it.
bool arena::keep_recent(std::uint64_t first, std::uint64_t pages) {
    constexpr std::uint64_t most = large_page_size / page_size;
    recent_extent* room = nullptr;
    for (recent_extent& r : recent_) {
        if (r.count == 0) {
            room = &r;
        } else if (first < r.first + r.count && r.first < first + pages) {
            return false;
        }
    }
    // Aligned like what the buddy allocator hands out.
    const bool is_whole = pages != 0 && pages <= most &&
                          (first & (~std::uint64_t{0} >> __builtin_clzl(2 * pages - 1) >> 1)) == 0;
    if (!is_whole) return pages_.free(first, pages, false);
    if (!pages_.is_allocated(first, pages)) return false;
    if (!room) {
        room = &recent_[recent_turn_++ % std::size(recent_)];
        pages_.free(room->first, room->count, false);
    }
    *room = {first, pages};
    return true;
}

bool arena::forget_recent() {
    bool some = false;
    for (recent_extent& r : recent_) {
        if (r.count == 0) continue;
        pages_.free(r.first, r.count, false);
        r.count = 0;
        some = true;
    }
    return some;
}

namespace {

/// Those that are not known to be zero, in runs.
void zero_dirty(const memory::buddy& pages, std::uint64_t first, std::uint64_t count, gva at) {
    const std::uint64_t end = first + count;
    for (std::uint64_t page = first; page < end;) {
        const std::uint64_t next = pages.end_of_alike(page, end);
        if (!pages.is_clean(page))
            zero_memory(at + (page - first) * page_size, (next - page) * page_size);
        page = next;
    }
}

}  // namespace

bool arena::grow_in_guest(std::uint64_t bytes) {
    if (exists() && grown_ == length_) return false;
    bool done = false;
    arch::in_host_from_kernel([&] { done = grow_in_host(bytes); });
    return done;
}

bool arena::grow_to_in_guest(std::uint64_t bytes) {
    bool done = false;
    arch::in_host_from_kernel([&] { done = grow_to(bytes).ok(); });
    return done;
}

void arena::trim_in_guest() {
    arch::in_host_from_kernel([&] { trim_in_host(options_.keep_dirty / 2); });
}

gva arena::allocate_in_guest(std::uint64_t bytes, contents wanted,
                             memory::buddy::preference first) {
    const std::uint64_t pages = bytes / page_size;
    auto& lock = cell::the_cell.space().lock();
    gva at;
    bool zero_later = false;
    for (;;) {
        {
            memory::guest_edit editing(lock);
            at = take(bytes, first);
            if (at.value) {
                if (options_.free_memory == visibility::allocated_only) {
                    stale_translations stale;  // only of the way to a table, if a leaf replaces it
                    map_range(*view_, at, bytes, frame_of(at), access::read_write,
                              arch::level::page_2m, stale);
                    stale.flush();
                }
                if (wanted == contents::zeroed && pages == 1) {
                    if (!pages_.is_clean(page_of(at))) zero_memory(at, page_size);
                } else if (wanted == contents::zeroed && pages <= few_pages) {
                    zero_dirty(pages_, page_of(at), pages, at);
                } else if (wanted == contents::zeroed) {
                    zero_later = !pages_.is_clean(page_of(at), pages);
                }
                if (!zero_later) pages_.set_used(page_of(at), pages);
                break;
            }
        }
        if (!grow_in_guest(bytes)) return gva{0};
    }
    if (zero_later) {
        // The pages are ours; their bits share words with others', which the lock protects.
        if (pages >= many_pages)
            discard_from_guest(at, bytes);
        else
            zero_dirty(pages_, page_of(at), pages, at);
        memory::guest_edit editing(lock);
        pages_.set_used(page_of(at), pages);
    }
    return at;
}

bool arena::free_in_guest(gva at, std::uint64_t bytes) {
    {
        memory::guest_edit editing(cell::the_cell.space().lock());
        // Nobody can get them before the lock is free again.
        if (!give_back(at, bytes, false)) return false;
        if (options_.free_memory == visibility::allocated_only) {
            stale_translations stale;
            unmap_range(*view_, at, bytes, false, stale);
            stale.flush();
        }
    }
    if (wants_trim()) [[unlikely]]
        trim_in_guest();
    return true;
}

namespace {

/// In ring3 the number comes from code without our privilege.
arena* arena_number(long number) {
    if (number < 0 || number >= static_cast<long>(arena_table::capacity)) return nullptr;
    return __atomic_load_n(&the_arenas.slots[number], __ATOMIC_ACQUIRE);
}

}  // namespace

long arena_allocate(long number, long bytes, long wanted, long first, long, long) {
    arena* a = arena_number(number);
    const auto n = static_cast<std::uint64_t>(bytes);
    if (!a || n == 0 || n % page_size != 0) return 0;
    const auto preference =
        first ? memory::buddy::preference::clean : memory::buddy::preference::dirty;
    return static_cast<long>(
        a->allocate_in_guest(n, wanted ? contents::zeroed : contents::any, preference).value);
}

long arena_free(long number, long at, long bytes, long, long, long) {
    arena* a = arena_number(number);
    return a &&
           a->free_in_guest(gva{static_cast<std::uint64_t>(at)}, static_cast<std::uint64_t>(bytes));
}

}  // namespace xos::vm
