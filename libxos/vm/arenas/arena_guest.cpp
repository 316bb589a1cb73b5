// Kernel side: extents of an arena, without an exit unless it has to grow.
#include "libxos/arch/guest_area.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/arenas/arena.hpp"

namespace xos::vm {

namespace {

/// So many pages are zeroed without releasing the lock.
constexpr std::uint64_t few_pages = 16;
/// From here on it is faster to let Linux take the pages and provide new ones on first touch.
constexpr std::uint64_t many_pages = 1024;
/// Linux's page tables for so many windows of a large extent may stay.
constexpr unsigned few_windows = 8;

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

/// Discards memory and Linux's page tables for it, which cost every later discard_from_guest() some.
void arena::discard_tables(gva at, std::uint64_t bytes) {
    long result = 0;
    arch::in_host_from_kernel([&] { result = map_fresh(at, bytes); });
    if (result != 0) discard_from_guest(at, bytes);
}

gva arena::take(std::uint64_t bytes, memory::buddy::preference first, bool& clean) {
    const std::uint64_t pages = bytes / page_size;
    if (!exists() || pages == 0 || pages > std::uint64_t{1} << memory::buddy::max_order)
        return gva{0};
    const unsigned order = pages == 1 ? 0 : 64 - static_cast<unsigned>(__builtin_clzl(pages - 1));
    auto page = pages_.allocate(order, first, clean);
    if (!page && empty_caches()) page = pages_.allocate(order, first, clean);
    if (!page) return gva{0};
    // The rest of the block is free again; its clean pages stay known as clean.
    const std::uint64_t end = *page + (std::uint64_t{1} << order);
    for (std::uint64_t at = *page + pages; at < end;) {
        const std::uint64_t next = pages_.end_of_alike(at, end);
        pages_.free(at, next - at, pages_.is_clean(at));
        at = next;
    }
    // A block that was not all clean may begin with clean pages.
    if (!clean && end != *page + pages) clean = pages_.is_clean(*page, pages);
    return address_of(*page);
}

bool arena::give_back(gva at, std::uint64_t bytes, bool clean) {
    if (!at.is_aligned(page_size) || bytes % page_size != 0 || !contains(at, bytes)) return false;
    const std::uint64_t first = page_of(at), pages = bytes / page_size;
    large_.forget(first, pages);
    if (large_.has_free(first, pages)) empty_large();
    return !caches_.is_claimed(first, pages) && pages_.free(first, pages, clean);
}

bool arena::empty_caches() {
    bool some = false;
    const unsigned vcpus = __atomic_load_n(&cell::the_cell.contexts.count, __ATOMIC_ACQUIRE);
    caches_.empty(vcpus, [&](const extent_caches::extent& e) {
        pages_.free(e.first, e.count, false);
        some = true;
    });
    return empty_large() || some;
}

bool arena::empty_large() {
    return large_.empty([&](const large_extents::extent& e) {
        stale_pages none;  // nobody has touched it since it was unmapped
        const std::uint64_t whole = e.count * page_size / large_page_size * large_page_size;
        unmap_range(*view_, address_of(e.first), whole, false, none);
        pages_.free(e.first, e.count, false);
    });
}

bool arena::has_claims() {
    empty_caches();
    return caches_.is_claimed(0, grown_ / page_size);
}

void arena::settle(gva at, std::uint64_t bytes) {
    // A thread that has claimed a page keeps it without the lock. In the child of a fork that
    // thread may not exist: what it was freeing stays allocated.
    constexpr unsigned spins = 64, most = 256 * spins;
    for (unsigned n = 1; n < most && caches_.is_claimed(page_of(at), bytes / page_size); n++) {
        empty_caches();
        if (n % spins == 0) arch::in_host_from_kernel([] { base::raw_syscall(__NR_sched_yield); });
        asm volatile("pause");
    }
}

namespace {

/// Zeroes the pages that are not known to be zero, in runs.
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

/// Makes memory that has never been used resident, and the window that follows it.
void arena::page_in(gva at, std::uint64_t bytes) {
    const std::uint64_t first = at - begin_;
    const std::uint64_t from = first > paged_in_ ? first : paged_in_;
    if (from >= first + bytes) return;
    const std::uint64_t left = grown_ - from;
    const std::uint64_t more = options_.window < left ? options_.window : left;
    __atomic_store_n(&paged_in_, from + more, __ATOMIC_RELAXED);
    arch::in_host_from_kernel([&] {
        base::raw_syscall(__NR_madvise, static_cast<long>((begin_ + from).value),
                          static_cast<long>(more), populate_write);
    });
}

gva arena::allocate_from_cache(std::uint64_t bytes, contents wanted) {
    const auto e = caches_.take(arch::current_area()->vcpu, bytes / page_size);
    if (e.count == 0) return gva{0};
    const gva at = address_of(e.first);
    if (options_.free_memory == visibility::allocated_only) {
        // The extent is small and whole, so it lies within a table that only its owners could
        // replace.
        stale_pages none;
        map_range(*view_, at, bytes, frame_of(at), access::read_write, arch::level::page_4k, none);
    }
    if (wanted == contents::zeroed) zero_memory(at, bytes);
    return at;
}

bool arena::free_to_cache(gva at, std::uint64_t bytes) {
    const std::uint64_t first = page_of(at), pages = bytes / page_size;
    if (!at.is_aligned(page_size) || bytes % page_size != 0 || !contains(at, bytes)) return false;
    if (!extent_caches::fits(first, pages) || !pages_.is_allocated(first, pages)) return false;
    const bool mapped = options_.free_memory == visibility::allocated_only;
    // A part of a large leaf needs the lock.
    if (mapped && view_->is_replaced(view_->piece_of(at))) return false;
    if (!caches_.claim(first, pages)) return false;
    if (!exists()) [[unlikely]] {  // retired meanwhile
        caches_.release(first, pages);
        return false;
    }
    if (mapped) {
        stale_pages stale;
        unmap_range(*view_, at, bytes, false, stale);
        flush(stale);
    }
    const auto victim = caches_.keep(arch::current_area()->vcpu, first, pages);
    if (victim.count) {
        memory::guest_edit editing(cell::the_cell.space().lock());
        caches_.release(victim.first, victim.count);
        pages_.free(victim.first, victim.count, false);
    }
    return true;
}

/// Dirty memory is taken first, so that Linux gets it back, unless there is little: Linux and KVM
/// have page tables for it, which make discarding it expensive.
memory::buddy::preference arena::preference_for(std::uint64_t bytes) const {
    using enum memory::buddy::preference;
    return dirty_free_bytes() < bytes / 8 ? clean : dirty;
}

gva arena::allocate_large(std::uint64_t bytes) {
    const std::uint64_t pages = bytes / page_size;
    gva at;
    bool is_zero = false, has_tables = true;  // Linux may have page tables for much of it
    {
        memory::guest_edit editing(cell::the_cell.space().lock());
        if (!exists()) return gva{0};
        stale_pages stale;  // only of the way to a table, if a leaf replaces it
        large_extents::extent* const kept = large_.take(pages);
        at = kept ? address_of(kept->first) : take(bytes, preference_for(bytes), is_zero);
        if (!at.value) return at;
        const std::uint64_t whole = bytes / large_page_size * large_page_size;
        if (kept) {
            has_tables = kept->ever_touched > few_windows;
            if (has_tables) kept->ever_touched = 0;
        } else {
            map_untouched_range(*view_, at, whole, frame_of(at), stale);
            pages_.set_used(page_of(at), pages);
            large_.add(page_of(at), pages);
        }
        if (bytes > whole)
            map_range(*view_, at + whole, bytes - whole, frame_of(at + whole), access::read_write,
                      arch::level::page_4k, stale);
        flush(stale);
    }
    if (!is_zero && has_tables) discard_tables(at, bytes);
    if (!is_zero && !has_tables) discard_from_guest(at, bytes);
    return at;
}

bool arena::keep_large(gva at, std::uint64_t bytes, stale_pages& stale) {
    large_extents::extent* const e = large_.exactly(page_of(at), bytes / page_size);
    if (!e) return false;
    large_extents::for_each_touched(*e, [&](std::uint64_t first) {
        e->ever_touched++;
        const gva window = address_of(first);
        unmap_range(*view_, window, large_page_size, false, stale);
        map_untouched_range(*view_, window, large_page_size, frame_of(window), stale);
    });
    const std::uint64_t whole = bytes / large_page_size * large_page_size;
    if (bytes > whole) unmap_range(*view_, at + whole, bytes - whole, false, stale);
    e->is_free = true;
    return true;
}

bool arena::touch(gva page) {
    if (!contains(page) || page - begin_ >= view_->length) return false;
    large_extents::extent* const e = large_.find(page_of(page));
    if (e && e->is_free) return false;
    if (!make_present(*view_, page)) return false;
    if (e) large_extents::note_touched(*e, page_of(page));
    return true;
}

gva arena::allocate_in_guest(std::uint64_t bytes, contents wanted,
                             memory::buddy::preference first) {
    const std::uint64_t pages = bytes / page_size;
    if (first == memory::buddy::preference::dirty && pages <= extent_caches::most && exists()) {
        if (const gva at = allocate_from_cache(bytes, wanted); at.value) return at;
    }
    if (wanted == contents::zeroed && first == memory::buddy::preference::dirty &&
        pages >= large_extents::least && options_.free_memory == visibility::allocated_only &&
        options_.pager != residency::window) {
        for (;;) {
            if (const gva at = allocate_large(bytes); at.value) return at;
            if (!grow_in_guest(bytes)) return gva{0};
        }
    }
    auto& lock = cell::the_cell.space().lock();
    gva at;
    bool zero_later = false, clean = false;
    for (;;) {
        {
            memory::guest_edit editing(lock);
            at = take(bytes, first, clean);
            if (at.value) {
                if (options_.free_memory == visibility::allocated_only) {
                    stale_pages stale;  // only of the way to a table, if a leaf replaces it
                    map_range(*view_, at, bytes, frame_of(at), access::read_write,
                              arch::level::page_2m, stale);
                    flush(stale);
                }
                if (wanted == contents::zeroed && !clean) {
                    zero_later = pages > few_pages;
                    if (!zero_later) zero_dirty(pages_, page_of(at), pages, at);
                }
                if (!zero_later) pages_.set_used(page_of(at), pages);
                break;
            }
        }
        if (!grow_in_guest(bytes)) return gva{0};
    }
    if (options_.pager == residency::window) [[unlikely]]
        page_in(at, bytes);
    if (zero_later) {
        // The pages are ours, but their bits share words with others', which the lock protects.
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
    if (bytes <= extent_caches::most * page_size && free_to_cache(at, bytes)) return true;
    {
        memory::guest_edit editing(cell::the_cell.space().lock());
        // Nobody can get these pages before the lock is released.
        if (!give_back(at, bytes, false)) return false;
        if (options_.free_memory == visibility::allocated_only) {
            stale_pages stale;
            unmap_range(*view_, at, bytes, false, stale);
            flush(stale);
        }
    }
    if (wants_trim()) [[unlikely]]
        trim_in_guest();
    return true;
}

namespace {

/// In ring3 the number comes from code without kernel privilege.
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
