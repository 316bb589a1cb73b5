// Memory that the cell manages itself: address and frame in one.
//
// An arena is one range of addresses, the same in guest and host, whose memory Linux no longer
// manages: a buddy allocator hands out extents. The arena grows by whole chunks, each a memory
// slot; Linux only provides the pages below the grown part.
//
//     arena a;
//     a.reserve({.bytes = 1 << 30});
//     const gva extent = a.allocate_in_guest(5 * page_size, contents::zeroed);
//     a.free_in_guest(extent, 5 * page_size);
//
// The buddy allocator knows which free pages are zero. Every page that the application could have
// written, itself or by a system call, counts as dirty; the processor's dirty bits do not matter.
#pragma once

#include <xos/residency.hpp>

#include "libxos/base/bytes.hpp"
#include "libxos/memory/buddy.hpp"
#include "libxos/vm/arenas/extent_cache.hpp"
#include "libxos/vm/arenas/large_extents.hpp"
#include "libxos/vm/views/views.hpp"

namespace xos::vm {

enum class contents { any, zeroed };

/// How free memory is mapped in the guest.
enum class visibility {
    always,          ///< like a heap's
    allocated_only,  ///< like munmap()ed memory: an access faults
};

struct arena_options {
    std::uint64_t bytes = 0;
    visibility free_memory = visibility::always;
    bool huge = false;      ///< from the machine's pool of huge pages, if it has enough
    bool populate = false;  ///< makes all memory resident before reserve() returns
    int node = -1;          ///< NUMA node, -1: any
    residency pager = residency::huge;
    std::uint64_t window = 0;  ///< bytes, for residency::window
    /// Free memory that is not zero goes back to Linux when it exceeds this.
    std::uint64_t keep_dirty = ~std::uint64_t{0};
};

class arena {
  public:
    /// Host mode. Reserves addresses, tables' lists and metadata; slots and table pages come with
    /// growth.
    base::outcome reserve(const arena_options& options);
    /// Host mode. Makes all of it usable now.
    base::outcome grow_to(std::uint64_t bytes);
    /// Host mode. Makes everything free and zero again, for another owner or none.
    base::outcome renew(const arena_options& options);
    void give_up();

    /// Plans an arena that is reserved when memory of it is first wanted; 0: never.
    void plan(const arena_options& o) {
        options_ = o;
        planned_ = o.bytes;
    }
    bool usable() const { return exists() || planned_ != 0; }

    bool exists() const { return length_ != 0; }
    bool contains(gva a) const { return a - begin_ < length_; }
    bool contains(gva a, std::uint64_t length) const {
        return contains(a) && length <= length_ - (a - begin_);
    }
    gva begin() const { return begin_; }
    std::uint64_t length() const { return length_; }
    gpa frame_of(gva a) const { return physical_ + (a - begin_); }
    const view& own_view() const { return *view_; }
    /// Under the address space's lock. Empties the caches first.
    memory::buddy& pages() {
        empty_caches();
        return pages_;
    }
    /// Under the lock, kernel side: waits until none of these pages is on its way into a cache, and
    /// takes those out that are in one.
    void settle(gva at, std::uint64_t bytes);
    std::uint64_t page_of(gva a) const { return (a - begin_) / page_size; }
    gva address_of(std::uint64_t page) const { return begin_ + page * page_size; }

    // All of these under the address space's lock, in either mode.

    /// Returns gva{0} when nothing large enough is free (yet: see grow). `bytes` is a multiple of
    /// the page size, at most 1 GiB.
    /// @param clean  set to whether all of it is known to be zero
    gva take(std::uint64_t bytes, memory::buddy::preference first, bool& clean);
    bool give_back(gva at, std::uint64_t bytes, bool clean);
    std::uint64_t dirty_free_bytes() const {
        return (pages_.free_pages() - pages_.clean_free_pages()) * page_size;
    }

    // Kernel side, taking the lock themselves.

    gva allocate_in_guest(std::uint64_t bytes, contents wanted, memory::buddy::preference first);
    bool free_in_guest(gva at, std::uint64_t bytes);
    /// Frees into the cache of this vCPU, without the lock; unmaps if free memory is unmapped.
    /// False: nothing has changed, and the caller must free in another way.
    bool free_to_cache(gva at, std::uint64_t bytes);
    /// Under the lock: takes a large extent back whole, unmapped. False: the range is not one.
    bool keep_large(gva at, std::uint64_t bytes, stale_pages& stale);
    /// Maps a page that has been touched for the first time; returns whether it is mapped. Needs no
    /// lock.
    bool touch(gva page);
    /// Whether some of these pages, in one or two windows, have never been touched.
    bool is_untouched(gva at, std::uint64_t bytes) const {
        const auto is = [&](gva page) {
            const std::uint64_t i = view_->piece_of(page);
            return view_->is_replaced(i) && vm::is_untouched(arch::load(*view_->coarse[i]));
        };
        return is(at) || is(at + (bytes - page_size));
    }
    /// Whether this page belongs to a large extent that is free, although its entries say
    /// otherwise.
    bool is_kept(gva page) {
        const large_extents::extent* e = large_.find(page_of(page));
        return e && e->is_free;
    }
    /// Under the lock: parts of these pages will be treated differently from now on.
    void forget_large(gva at, std::uint64_t bytes) {
        large_.forget(page_of(at), bytes / page_size);
    }
    /// Leaves the guest to enlarge the arena so that `bytes` fit; false if that is impossible.
    bool grow_in_guest(std::uint64_t bytes);
    /// Makes the first `bytes` usable.
    bool grow_to_in_guest(std::uint64_t bytes);
    void trim_in_guest();

    // Host mode, taking the lock themselves.

    gva allocate_in_host(std::uint64_t bytes, contents wanted, memory::buddy::preference first);
    bool free_in_host(gva at, std::uint64_t bytes);
    /// Gives dirty free memory back to Linux until at most `keep` bytes are left; returns the bytes
    /// given.
    std::uint64_t trim_in_host(std::uint64_t keep);
    /// Zeroes one free block of at most `most` bytes; returns its size in bytes.
    std::uint64_t zero_some_in_host(std::uint64_t most);
    /// The lock is optional. Puts new memory of Linux's in a part of the arena, whatever lies there.
    /// On an error, which is Linux's and returned negative, nothing has changed.
    long map_fresh(gva at, std::uint64_t bytes) const;
    bool wants_trim() const { return dirty_free_bytes() > options_.keep_dirty; }
    /// Under the lock: empties the caches. Returns whether a thread is about to put an extent into
    /// one.
    bool has_claims();
    /// Under the lock: Linux manages this memory from now on, and nothing is allocated from it.
    void retire() { length_ = planned_ = 0; }

    const arena_options& options() const { return options_; }
    bool in_use() const { return in_use_; }
    std::uint64_t grown() const { return grown_; }
    /// Bytes that are allocated or cached. Reads without the lock, so the value is approximate.
    std::uint64_t used() const { return grown_ - pages_.free_pages() * page_size; }

  private:
    bool grow_in_host(std::uint64_t bytes);
    base::outcome add_chunk(std::uint64_t bytes);
    void page_in(gva at, std::uint64_t bytes);
    void discard_tables(gva at, std::uint64_t bytes);
    gva allocate_from_cache(std::uint64_t bytes, contents wanted);
    gva allocate_large(std::uint64_t bytes);
    memory::buddy::preference preference_for(std::uint64_t bytes) const;
    bool empty_caches();
    bool empty_large();

    gva begin_;
    gpa physical_;
    std::uint64_t length_ = 0, grown_ = 0, planned_ = 0;
    std::uint64_t paged_in_ = 0;  ///< how much the window has paged in
    view* view_ = nullptr;
    memory::buddy pages_;
    extent_caches caches_;
    large_extents large_;
    arena_options options_;
    bool in_use_ = false;
};

/// The arenas of the application. The gateway takes an arena's number instead of its address. They
/// live in libxos's own memory, which kernel-side code may touch at any time.
struct arena_table {
    static constexpr unsigned capacity = 64;
    arena* slots[capacity] = {};
};
extern arena_table the_arenas;

/// Host mode: makes a new arena, or reuses one that was given up and is large enough.
base::outcome make_arena(const arena_options& options, unsigned& number);
/// Host mode: gives everything in the arena back to Linux.
void give_up_arena(unsigned number);

// Gateway services: long f(number, ...).
long arena_allocate(long number, long bytes, long wanted, long first, long, long);
long arena_free(long number, long at, long bytes, long, long, long);

/// The arena that serves the process's anonymous memory (anonymous_guest.cpp).
extern arena the_process_arena;

/// MADV_POPULATE_WRITE
inline constexpr long populate_write = 23;

/// Tells Linux how to make this memory resident.
void advise(gva begin, std::uint64_t length, residency pager);

/// Reserves as much of it as physical addresses allow.
base::outcome reserve_process_arena(const arena_options& planned);
/// Half of the machine's memory, or less if the process's limits require.
std::uint64_t default_arena_bytes();

inline void zero_memory(gva at, std::uint64_t bytes) {
    base::zero_words(reinterpret_cast<void*>(at.value), bytes);
}

}  // namespace xos::vm
