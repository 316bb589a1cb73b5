// Views: guest addresses whose translations the application owns, and the frames to put there.
//
// A view has all its tables from the start, down to the level of its smallest leaf, so no edit can
// run out of memory half way. One level up, a large leaf may replace a table; the table is kept
// until the leaf is split again.
#pragma once

#include <atomic>
#include <xos/vm.hpp>

#include "libxos/base/futex_lock.hpp"
#include "libxos/base/outcome.hpp"
#include "libxos/memory/address_space.hpp"

namespace xos::vm {

/// Read by kernel-side code. Once the view exists, only the tags of `tables` change.
struct view {
    gva begin;
    std::uint64_t length = 0;    ///< an arena's grows with it
    unsigned fine_shift = 12;    ///< of the smallest leaf
    unsigned coarse_shift = 21;  ///< of what one table covers
    bool is_arena = false;       ///< its frames have the addresses of the view
    /// For a view that was given back, whose `length` is 0: how many bytes of addresses have
    /// tables.
    std::uint64_t free_length = 0;
    /// One for each piece of the size of `coarse_shift`. Tagged while a large leaf takes its place,
    /// or while there is no table yet.
    std::atomic<std::uint64_t>* tables = nullptr;
    arch::entry** coarse = nullptr;  ///< the entries that refer to the tables

    static constexpr std::uint64_t replaced = 1;

    std::uint64_t piece_of(gva a) const { return (a - begin) >> coarse_shift; }
    arch::entry* table(std::uint64_t piece) const {
        return reinterpret_cast<arch::entry*>(tables[piece].load(std::memory_order_relaxed) &
                                              ~replaced);
    }
    bool is_replaced(std::uint64_t piece) const {
        return tables[piece].load(std::memory_order_relaxed) & replaced;
    }
    arch::level fine() const { return static_cast<arch::level>((fine_shift - 3) / 9); }
    arch::level coarser() const { return static_cast<arch::level>((coarse_shift - 3) / 9); }
    bool has_large_leaves() const { return coarser() != arch::level::root; }

    /// Returns the entry of a page, or null while a large leaf covers it.
    arch::entry* slot_of(gva page) const {
        const std::uint64_t offset = page - begin;
        const std::uint64_t tagged = tables[offset >> coarse_shift].load(std::memory_order_relaxed);
        if (tagged & replaced) [[unlikely]]
            return nullptr;
        return reinterpret_cast<arch::entry*>(tagged) + (page.value >> fine_shift & 511);
    }
    /// The same, for a view of 4 KiB leaves.
    arch::entry* slot_of_4k(gva page) const {
        const std::uint64_t tagged =
            tables[(page - begin) / large_page_size].load(std::memory_order_relaxed);
        if (tagged & replaced) [[unlikely]]
            return nullptr;
        return reinterpret_cast<arch::entry*>(tagged + (page.value >> 9 & 0xff8));
    }
};

struct view_table {
    static constexpr unsigned capacity = 256;
    std::atomic<unsigned> count = 0;
    view views[capacity];

    const view* find(gva a) const {
        const view* const end = views + count.load(std::memory_order_acquire);
        for (const view* v = views; v < end; v++) {
            if (a - v->begin < v->length) return v;
        }
        return nullptr;
    }
    bool contains(gva begin, std::uint64_t length) const {
        const view* v = find(begin);
        return v && length <= v->length - (begin - v->begin);
    }
};

/// A stack of free frames, linked through the frames themselves; lock-free, because both modes use
/// it.
class frame_pool {
  public:
    void attach(const memory::region& frames);
    bool ready() const { return length_ != 0; }
    /// A frame that was used before is not zeroed.
    gpa allocate();
    void free(gpa frame);
    bool owns(gpa frame) const {
        return frame - physical_ < length_ && frame.is_aligned(page_size);
    }
    void* data(gpa frame) const {
        return reinterpret_cast<void*>((host_ + (frame - physical_)).value);
    }

    /// Sets `count` frames aside for take_aside(), or none. Under the address space's lock.
    bool set_aside(std::uint64_t count);
    gpa take_aside();

  private:
    volatile std::uint64_t& link(gpa frame) const {
        return *static_cast<volatile std::uint64_t*>(data(frame));
    }

    hva host_;
    gpa physical_;
    std::uint64_t length_ = 0;
    gpa aside_;
    std::atomic<std::uint64_t> fresh_ = 0;  ///< offset of the first frame never handed out
    std::atomic<std::uint64_t> free_ = 0;   ///< tag << 32 | index + 1
};

extern view_table the_views;
extern frame_pool the_frames;

/// Makes the frame pool; called once.
base::outcome reserve_frames(std::uint64_t bytes);
/// Returns the smallest suitable view that was given back, or a new one.
base::outcome reserve_view(std::uint64_t bytes, arch::level smallest, gva& begin);
/// Nothing may be mapped in the view any more, and nobody may use it. Host mode.
void give_back_view(const view& v);
/// Reserves addresses, mapped with this protection, which Linux then gives to nobody else.
base::outcome reserve_addresses(std::uint64_t length, std::uint64_t alignment, long protection,
                                gva& begin);

/// Adds a view of 4 KiB leaves without tables: host mode, space.lock() held. It may grow to
/// `capacity` bytes.
base::outcome add_empty_view(gva begin, std::uint64_t capacity, view*& made);
/// Makes tables for the next `more` bytes of the view, a multiple of 2 MiB.
base::outcome extend_view(view& v, std::uint64_t more);

// ---- what an entry says

/// Not present, but the entry keeps its frame: mapped without any permission.
inline constexpr auto held = arch::entry_flags::software_11;
/// Not present; the frame is on its way back to the pool.
inline constexpr auto leaving = arch::entry_flags::software_10;

/// Set besides `held` in a large leaf that may be read and written but has not been touched. The
/// first fault makes it present.
inline constexpr auto untouched = arch::entry_flags::software_52;

inline bool is_untouched(arch::entry e) {
    return !e.is_present() && e.has(untouched);
}
inline bool is_mapped(arch::entry e) {
    return e.has(arch::entry_flags::present | held);
}

/// Indexed by the three bits of an access; memory that may not be read may not be touched at all.
inline constexpr auto access_flags = [] {
    using enum arch::entry_flags;
    struct {
        arch::entry_flags of[8];
    } table{};
    for (unsigned bits = 0; bits < 8; bits++) {
        const auto more = (bits & 2 ? writable : none) | (bits & 4 ? none : no_execute);
        table.of[bits] = bits & 1 ? present | user | more : held;
    }
    return table;
}();
constexpr arch::entry_flags flags_of(access a) {
    return access_flags.of[static_cast<unsigned>(a) & 7];
}
inline constexpr auto access_bits = arch::entry_flags::present | arch::entry_flags::user |
                                    arch::entry_flags::writable | arch::entry_flags::no_execute |
                                    held | untouched;

inline access access_of(arch::entry e) {
    if (!e.is_present()) return access::none;
    return static_cast<access>(1u | (e.has(arch::entry_flags::writable) ? 2u : 0u) |
                               (e.has(arch::entry_flags::no_execute) ? 0u : 4u));
}

/// Whether a TLB may hold more than the entry now allows.
inline bool takes_away(arch::entry before, arch::entry after) {
    using enum arch::entry_flags;
    if (!before.is_present()) return false;
    const arch::entry lost(before.bits & ~after.bits), gained(after.bits & ~before.bits);
    return lost.has(present | writable) || gained.has(no_execute);
}

// ---- kernel side

/// The translations of this address space that have changed and must be flushed.
class stale_translations {
  public:
    void add(gva page) {
        if (count_ < capacity) pages_[count_] = page.value;
        count_++;
    }
    void add_all() { count_ = capacity + 1; }
    bool any() const { return count_ != 0; }
    /// Flushes on this vCPU and on every other one that holds translations.
    void flush();

  private:
    /// Above this number, reloading CR3 costs less (Linux's tlb_single_page_flush_ceiling is 33).
    static constexpr unsigned capacity = 32;
    unsigned count_ = 0;
    std::uint64_t pages_[capacity];  // of type gva they would all be zeroed first
};

void flush_page(gva page);

/// The number of flushes so far, on any vCPU: a tagged TLB entry of another space may have missed
/// some.
extern std::uint64_t the_flushes;

/// Flushes a page on this CPU, which reads its own tables.
inline void invalidate(gva page) {
    asm volatile("invlpg (%0)" : : "r"(page.value) : "memory");
}

enum class edit_kind : std::uint32_t { map, map_new, unmap, protect, move, split, merge };

/// One entry of a batch, as the API hands it to the kernel side.
struct edit {
    edit_kind kind;
    access allowed;
    std::uint32_t largest;  ///< arch::level of the largest leaf to map with
    std::uint32_t option;   ///< unmap: give frames back to the pool; map: clear accessed and dirty
    gva begin;
    std::uint64_t length;
    std::uint64_t target;  ///< map: the first frame; move: the new address
};

struct edit_request {
    const edit* edits;
    std::uint64_t count;
    std::uint64_t failed;  ///< out: index of the edit that was refused
};

struct scan_request {
    gva begin;
    std::uint64_t length;
    std::uint64_t* bitmap;
    std::uint64_t flags;  ///< arch::entry_flags that count
    bool clear;
    std::uint64_t found;  ///< out
};

struct query_request {
    gva address;
    translation found;
};

// Gateway services: long f(long a, b, c, d, e, f), on the system-call stack.
long map_page(long page, long frame, long writable, long, long, long);
long protect_page(long page, long wanted, long, long, long, long);
long commit_edits(long request, long, long, long, long, long);
long scan_used(long request, long, long, long, long, long);
long query_page(long request, long, long, long, long, long);

/// map_page and protect_page as functions of ordinary code in the flat modes. Signals wait until it
/// is done.
long map_page_directly(long page, long frame, long writable) noexcept;
long protect_page_directly(long page, long wanted) noexcept;
/// The same, but only on the stack of a handler: it holds the lock, and other stacks may not be
/// mapped.
long copy_on_write_directly(long page) noexcept;

/// Gateway numbers (XOS_GATEWAY_BASE + n).
enum gateway : unsigned {
    gateway_map = 0,
    gateway_protect,
    gateway_commit,
    gateway_scan,
    gateway_query,
    gateway_arena_allocate,
    gateway_arena_free,
    gateway_space_make,
    gateway_space_end,
    gateway_space_separate,
    gateway_space_switch,
    gateway_copy_on_write,
};

}  // namespace xos::vm
