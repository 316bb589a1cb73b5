#include <linux/mempolicy.h>
#include <linux/mman.h>

#include <new>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/arenas/arena.hpp"

namespace xos::vm {

using base::as_long;
using base::outcome;
using base::raw_syscall;
using base::step;

arena the_process_arena;
arena_table the_arenas;

namespace {

memory::edit_lock& lock() {
    return cell::the_cell.space().lock();
}

/// Maps memory for the arena, at addresses that libxos has reserved.
outcome map_memory(gva begin, std::uint64_t length, const arena_options& options) {
    constexpr long common = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    const long at = static_cast<long>(begin.value), n = static_cast<long>(length);
    long r = -1;
    if (options.huge) r = raw_syscall(__NR_mmap, at, n, 3, common | MAP_HUGETLB, -1, 0);
    if (base::is_error(r)) r = raw_syscall(__NR_mmap, at, n, 3, common | MAP_NORESERVE, -1, 0);
    if (base::is_error(r)) return {step::reserve_memory, static_cast<int>(-r)};
    advise(begin, length, options.pager);
    if (options.node >= 0) {
        if (options.node >= 64) return {step::bad_option, base::error::inval};
        const std::uint64_t nodes = std::uint64_t{1} << options.node;
        r = raw_syscall(__NR_mbind, at, n, MPOL_BIND, as_long(&nodes), 65, 0);
        if (r < 0) return {step::reserve_memory, static_cast<int>(-r)};
    }
    if (options.populate) {
        r = raw_syscall(__NR_madvise, at, n, populate_write);
        if (r < 0) return {step::reserve_memory, static_cast<int>(-r)};
    }
    return base::success;
}

}  // namespace

void advise(gva begin, std::uint64_t length, residency pager) {
    if (pager == residency::system) return;
    raw_syscall(
        __NR_madvise, static_cast<long>(begin.value), static_cast<long>(length),
        pager == residency::demand || pager == residency::window ? MADV_NOHUGEPAGE : MADV_HUGEPAGE);
}

outcome arena::reserve(const arena_options& options) {
    auto& cell = cell::the_cell;
    auto& space = cell.space();
    options_ = options;
    const std::uint64_t unit = memory::chunk_size;
    const std::uint64_t length = (options.bytes + unit - 1) / unit * unit;
    if (length == 0 || length < options.bytes) return {step::bad_option, base::error::inval};
    const std::uint64_t pages = length / page_size;
    if (pages > memory::buddy::max_pages) return {step::bad_option, base::error::inval};
    gva begin;
    if (auto failed =
            reserve_addresses(length, length < huge_page_size ? unit : huge_page_size, 0, begin);
        !failed.ok()) {
        return failed;
    }
    if (auto failed = space.exclude(begin, begin + length); !failed.ok()) return failed;

    // The allocator's own memory is touched under the lock, so it is mapped from the start.
    const std::uint64_t of_pages = memory::buddy::metadata_bytes(pages);
    const std::uint64_t bytes = of_pages + extent_caches::bytes_of_bits(pages);
    const std::uint64_t own = (bytes + large_page_size - 1) / large_page_size * large_page_size;
    gva metadata;
    if (auto failed = reserve_addresses(own, unit, 3, metadata); !failed.ok()) return failed;
    raw_syscall(__NR_madvise, static_cast<long>(metadata.value), static_cast<long>(own),
                MADV_NOHUGEPAGE);
    if (auto failed = space.exclude(metadata, (metadata + own).align_up(unit)); !failed.ok())
        return failed;
    space.note_own(metadata, own);
    memory::region made;
    if (auto failed = space.add_frames(hva{metadata.value}, own, made); !failed.ok()) return failed;

    const hva slots = cell.arena.allocate_kernel(extent_caches::bytes_of_slots(cell.contexts.most));
    if (!slots.value) return {step::reserve_memory, base::error::nomem};

    memory::host_edit editing(lock());
    pages_.attach(reinterpret_cast<void*>(metadata.value), pages);
    caches_.attach(reinterpret_cast<void*>(metadata.value + of_pages),
                   reinterpret_cast<void*>(slots.value), cell.contexts.most);
    physical_ = space.allocate_physical(hva{begin.value}, length);
    if (!physical_.value) return {step::physical_address_space, 0};
    if (auto failed = add_empty_view(begin, length, view_); !failed.ok()) return failed;
    begin_ = begin;
    length_ = length;
    return base::success;
}

outcome arena::grow_to(std::uint64_t bytes) {
    memory::host_edit editing(lock());
    const std::uint64_t unit = memory::chunk_size;
    const std::uint64_t wanted = (bytes + unit - 1) / unit * unit;
    if (wanted > length_) return {step::reserve_memory, base::error::nomem};
    return wanted > grown_ ? add_chunk(wanted - grown_) : base::success;
}

outcome arena::renew(const arena_options& options) {
    options_ = options;
    const arena_options usable{
        .huge = options.huge, .populate = options.populate, .node = options.node};
    if (auto failed = map_memory(begin_, length_, usable); !failed.ok()) return failed;
    in_use_ = true;
    return base::success;
}

void arena::give_up() {
    raw_syscall(__NR_mmap, static_cast<long>(begin_.value), static_cast<long>(length_), 3,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    memory::host_edit editing(lock());
    empty_caches();
    for (std::uint64_t page = 0; page < grown_ / page_size; page++) pages_.take(page, 1);
    pages_.free(0, grown_ / page_size, true);
    in_use_ = false;
}

outcome make_arena(const arena_options& options, unsigned& number) {
    memory::held guard(memory::the_locks.arenas);
    constexpr unsigned none = ~0u;
    number = none;
    for (unsigned i = 0; i < arena_table::capacity; i++) {
        arena* a = the_arenas.slots[i];
        if (!a) {
            if (number == none) number = i;
        } else if (!a->in_use() && a->length() >= options.bytes &&
                   a->length() / 2 <= options.bytes) {
            number = i;
            break;
        }
    }
    if (number == none) return {step::reserve_memory, base::error::nospc};
    if (the_arenas.slots[number]) return the_arenas.slots[number]->renew(options);
    const hva own = cell::the_cell.arena.allocate_kernel(sizeof(arena));
    if (!own.value) return {step::reserve_memory, base::error::nomem};
    auto* made = new (reinterpret_cast<void*>(own.value)) arena;
    if (auto failed = made->reserve(options); !failed.ok()) return failed;
    // One slot covers all of it, so that its cost is known from the start.
    if (auto failed = made->grow_to(options.bytes); !failed.ok()) return failed;
    if (auto failed = made->renew(options); !failed.ok()) return failed;
    __atomic_store_n(&the_arenas.slots[number], made, __ATOMIC_RELEASE);
    return base::success;
}

void give_up_arena(unsigned number) {
    the_arenas.slots[number]->give_up();
}

/// Adds a slot, tables, and pages for the allocator. Under the lock.
outcome arena::add_chunk(std::uint64_t bytes) {
    const gva at = begin_ + grown_;
    auto& space = cell::the_cell.space();
    if (auto failed = space.add_slot(hva{at.value}, frame_of(at), bytes); !failed.ok())
        return failed;
    if (auto failed = extend_view(*view_, bytes); !failed.ok()) return failed;
    // Until now it was only reserved, so that core files and limits do not count it.
    if (const long r = raw_syscall(__NR_mprotect, static_cast<long>(at.value),
                                   static_cast<long>(bytes), PROT_READ | PROT_WRITE);
        r < 0)
        return {step::reserve_memory, static_cast<int>(-r)};
    advise(at, bytes, options_.pager);
    if (options_.free_memory == visibility::always) {
        stale_pages none;  // nothing was mapped
        map_range(*view_, at, bytes, frame_of(at), access::read_write, arch::level::page_2m, none);
    }
    // Pages that are not resident now become so on first touch, as usual.
    if (options_.pager == residency::populate)
        raw_syscall(__NR_madvise, static_cast<long>(at.value), static_cast<long>(bytes),
                    populate_write);
    pages_.add(page_of(at), bytes / page_size, true);
    grown_ += bytes;
    return base::success;
}

long arena::map_fresh(gva at, std::uint64_t bytes) const {
    const long r = raw_syscall(__NR_mmap, static_cast<long>(at.value), static_cast<long>(bytes),
                               PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (base::is_error(r)) return r;
    advise(at, bytes, options_.pager);
    return 0;
}

bool arena::grow_in_host(std::uint64_t bytes) {
    if (!exists() && (planned_ == 0 || !reserve_process_arena(options_).ok())) {
        planned_ = 0;
        return false;
    }
    memory::host_edit editing(lock());
    // Another thread may already have grown it.
    if (pages_.free_pages() && page_size << pages_.largest_free_order() >= bytes) return true;
    // A block of this size begins at a multiple of the size.
    std::uint64_t block = page_size;
    while (block < bytes) block <<= 1;
    const std::uint64_t unit = memory::chunk_size;
    std::uint64_t wanted =
        block <= unit ? grown_ + unit : (grown_ + block - 1) / block * block + block;
    if (wanted > length_) wanted = length_;
    if (wanted <= grown_ || !add_chunk(wanted - grown_).ok()) return false;
    return true;
}

gva arena::allocate_in_host(std::uint64_t bytes, contents wanted, memory::buddy::preference first) {
    for (;;) {
        gva at;
        bool clean = false;
        {
            memory::host_edit editing(lock());
            at = take(bytes, first, clean);
            if (at.value) {
                pages_.set_clean(page_of(at), bytes / page_size, false);
            }
        }
        if (!at.value) {
            if (!grow_in_host(bytes)) return gva{0};
            continue;
        }
        if (wanted == contents::zeroed && !clean) zero_memory(at, bytes);
        return at;
    }
}

bool arena::free_in_host(gva at, std::uint64_t bytes) {
    {
        memory::host_edit editing(lock());
        if (!give_back(at, bytes, false)) return false;
    }
    if (wants_trim()) trim_in_host(options_.keep_dirty / 2);
    return true;
}

std::uint64_t arena::trim_in_host(std::uint64_t keep) {
    std::uint64_t given = 0;
    for (;;) {
        std::optional<memory::buddy::block> block;
        {
            memory::host_edit editing(lock());
            if (dirty_free_bytes() <= keep) return given;
            block = pages_.take_dirty(memory::buddy::max_order);
        }
        if (!block) return given;
        const std::uint64_t bytes = page_size << block->order;
        const long r = raw_syscall(__NR_madvise, static_cast<long>(address_of(block->first).value),
                                   static_cast<long>(bytes), MADV_DONTNEED);
        {
            memory::host_edit editing(lock());
            pages_.free(block->first, bytes / page_size, r == 0);
        }
        if (r != 0) return given;  // locked or hugetlb memory stays
        given += bytes;
    }
}

std::uint64_t arena::zero_some_in_host(std::uint64_t most) {
    unsigned order = 0;
    while (order < memory::buddy::max_order && page_size << (order + 1) <= most) order++;
    std::optional<memory::buddy::block> block;
    {
        memory::host_edit editing(lock());
        block = pages_.take_dirty(order);
    }
    if (!block) return 0;
    const std::uint64_t pages = std::uint64_t{1} << block->order;
    for (std::uint64_t i = 0; i < pages; i++) {
        if (!pages_.is_clean(block->first + i))
            zero_memory(address_of(block->first + i), page_size);
    }
    memory::host_edit editing(lock());
    pages_.free(block->first, pages, true);
    return pages * page_size;
}

namespace {

/// Returns a quarter of the address space, or of the private memory, that the process may have.
std::uint64_t share_of_limits() {
    constexpr long data = 2, address_space = 9;  // RLIMIT_...
    std::uint64_t least = ~std::uint64_t{0};
    for (long which : {data, address_space}) {
        std::uint64_t limit[2];  // soft, hard
        if (raw_syscall(__NR_prlimit64, 0, which, 0, as_long(limit)) == 0 && limit[0] / 4 < least)
            least = limit[0] / 4;
    }
    return least;
}

}  // namespace

std::uint64_t default_arena_bytes() {
    const std::uint64_t half = memory::machine_memory() / 2, most = share_of_limits();
    return (half < most ? half : most) / memory::chunk_size * memory::chunk_size;
}

outcome reserve_process_arena(const arena_options& planned) {
    memory::held guard(memory::the_locks.process_arena);
    if (the_process_arena.exists()) return base::success;
    // Other arenas and chunks need physical addresses, too.
    const std::uint64_t most = cell::the_cell.space().physical_left() / 4;
    arena_options options = planned;
    if (options.bytes > most) options.bytes = most;
    if (auto failed = the_process_arena.reserve(options); !failed.ok()) return failed;
    cell::the_cell.guard.begin = the_process_arena.begin();
    cell::the_cell.guard.length = the_process_arena.length();
    if (auto failed = cell::guard_calls(); !failed.ok()) {
        // Then all anonymous memory stays Linux's.
        cell::the_cell.guard.length = 0;
        the_process_arena.retire();
        return failed;
    }
    return base::success;
}

}  // namespace xos::vm
