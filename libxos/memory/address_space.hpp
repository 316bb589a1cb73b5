// What the guest can see: regions (GVA → GPA → HVA) and the page tables over them.
//
// Host-managed memory comes in chunks: when the guest first touches one, 64 MiB of the process's
// address space become one slot and 32 large-page entries. After that mmap, munmap, mprotect and
// the like need no work here: the guest's tables say "present", Linux's say what is true, and KVM
// follows Linux's through its MMU notifiers.
//
// KVM keeps up to 160 KiB of kernel memory for such a slot. A program may walk through terabytes of
// addresses, so there is a limit to the number of chunks. Beyond it the oldest chunk's slot and
// guest-physical addresses serve the new one; the old one becomes visible again when it is touched.
#pragma once

#include <xos/types.hpp>

#include "libxos/base/outcome.hpp"
#include "libxos/kvm/machine.hpp"
#include "libxos/memory/arena_frames.hpp"
#include "libxos/memory/fork_locks.hpp"
#include "libxos/memory/physical_space.hpp"
#include "libxos/memory/system_arena.hpp"
#include "libxos/paging/entry_rules.hpp"
#include "libxos/paging/page_tables.hpp"

namespace xos::memory {

inline constexpr std::uint64_t chunk_size = std::uint64_t{64} << 20;
/// User addresses end one page below 2^47, and a slot must end there too.
inline constexpr std::uint64_t user_end = (std::uint64_t{1} << 47) - page_size;

/// The bytes of memory that the machine has; 0 if Linux does not say.
std::uint64_t machine_memory();

struct region {
    gva guest;
    gpa physical;
    hva host;
    std::uint64_t length;
    bool can_be_recycled = false;  ///< a chunk that kernel-side code does not need
};

/// The flags of leaves over host-managed memory: Linux decides what the application really may do.
inline constexpr auto everything = paging::protection::writable | paging::protection::user;
inline constexpr auto not_code = everything | paging::protection::no_execute;

enum class arena_visibility {
    all,            ///< flat modes: libxos edits page tables at the application's privilege
    kernel_hidden,  ///< ring3
};

class address_space {
  public:
    static constexpr unsigned max_regions = 32768, max_exclusions = 256;

    explicit address_space(unsigned physical_bits)
        : tables_(frames_, {.physical_bits = physical_bits}), physical_(physical_bits) {}
    address_space(const address_space&) = delete;
    address_space& operator=(const address_space&) = delete;

    /// Creates slot and mappings of the arena, and the root table.
    base::outcome create(kvm::machine& machine, system_arena& arena, arena_visibility visibility);

    enum class chunk_result { added, already_there, not_user_memory, later, failed };
    /// Makes the chunk around `address` visible. `failure` says why it failed; `later` is only
    /// returned after add_slots_apart().
    chunk_result add_chunk(gva address, base::outcome& failure);

    /// From now on a vCPU may be in a page fault that another thread of the process serves
    /// (userfaultfd(2)). KVM adds a slot only when the vCPU has left that fault, so no thread that
    /// might serve it may wait for a slot.
    void add_slots_apart() { adds_apart_ = true; }

    /// Sets whether the guest may execute host-managed memory: the one right that KVM does not take
    /// from Linux's tables. Whole pages; skips what is not visible yet. False: out of table pages.
    bool set_executable(gva begin, std::uint64_t length, bool executable);

    /// The guest has tried to execute code there, in a visible chunk. Asks Linux, and makes all of
    /// the chunk's code executable. Returns whether `address` is code.
    bool find_code(gva address);
    /// Makes all code that Linux has mapped visible and executable at once.
    base::outcome reveal_code();

    /// Chunks that are visible now stay so for good: kernel-side code touches them at any time.
    /// Later ones are limited to twice the machine's memory, or 256 GiB.
    void keep_visible_chunks();

    /// Keeps [begin, end), whole chunks, free of host-managed mappings.
    base::outcome exclude(gva begin, gva end);

    /// Ends the exclusion that begins there: Linux manages the range again.
    void readmit(gva begin);

    /// Registers memory of libxos's own that lies among the process's.
    void note_own(gva begin, std::uint64_t length);
    bool overlaps_own(gva begin, std::uint64_t length) const;

    /// Adds a slot for page frames that views will map, visible at its host address. The addresses
    /// must have been excluded.
    base::outcome add_frames(hva begin, std::uint64_t length, region& made);

    /// Under lock(): guest-physical addresses for a range whose slots are added piece by piece.
    gpa allocate_physical(hva like, std::uint64_t length) {
        return physical_.allocate(like, length,
                                  length < huge_page_size ? large_page_size : huge_page_size);
    }
    std::uint64_t physical_left() const { return physical_.left(); }
    /// Under lock(): adds a slot without a mapping.
    base::outcome add_slot(hva begin, gpa physical, std::uint64_t length) {
        return add_region({gva{begin.value}, physical, begin, length});
    }

    /// After fork: adds the same regions to a new VM. Page tables were copied with the rest of
    /// memory.
    base::outcome attach_to(kvm::machine& machine);

    // Under lock(): roots besides the main one, whose upper halves follow the main root's.

    arena_frames& frames() { return frames_; }
    /// A zeroed table page, or null.
    arch::entry* new_table() {
        const gpa page = frames_.allocate();
        return page.value ? frames_.table(page) : nullptr;
    }
    /// Takes back a table page that is all zeros.
    void release_table(arch::entry* table) {
        frames_.release(physical_of(reinterpret_cast<std::uint64_t>(table)));
    }
    arch::entry* root_table() { return frames_.table(tables_.root()); }
    arch::entry* table_of(arch::entry reference) {
        return frames_.table(gpa(reference.bits & arch::address_mask));
    }
    /// Called under lock() whenever the main root has new tables.
    void (*on_new_tables)() = nullptr;

    /// The guest-physical address of libxos's own memory.
    gpa physical_of(std::uint64_t own) const { return frames_.physical_of(own); }

    gpa root() const { return tables_.root(); }
    unsigned chunks() const { return chunks_; }
    /// How often a chunk's slot was taken for another one.
    std::uint64_t recycled() const { return recycled_; }
    edit_lock& lock() { return the_locks.editing; }
    paging::page_tables<arena_frames>& tables() { return tables_; }

  private:
    /// The slot of a region has the region's number.
    base::outcome add_region(const region& r);
    base::outcome add_mapped(region& chunk);
    chunk_result add_apart(const region& chunk, unsigned slot, base::outcome& failure);
    bool find_oldest_chunk(unsigned& found);
    bool recycle_oldest_chunk(region& chunk, unsigned& slot);
    bool end_pending(bool wait);
    bool set_executable_within(gva begin, std::uint64_t length, bool executable);

    kvm::machine* machine_ = nullptr;
    system_arena* arena_ = nullptr;
    arena_frames frames_;
    paging::page_tables<arena_frames> tables_;
    physical_space physical_;
    region* regions_ = nullptr;
    unsigned region_count_ = 0;
    unsigned chunks_ = 0, most_chunks_ = max_regions;
    std::uint64_t recycled_ = 0;
    unsigned oldest_ = 0;  ///< where the search for the oldest chunk goes on
    bool keeps_new_chunks_ = true;
    struct {
        gva begin, end;
    } exclusions_[max_exclusions];
    unsigned exclusion_count_ = 0;
    bool adds_apart_ = false;
    /// The chunk that a separate process is adding.
    struct {
        bool exists = false;
        bool removes = false;  ///< the slot's old memory is being removed first
        unsigned slot;
        region chunk;
        kvm::machine::slot_request request;
    } pending_;
    static constexpr unsigned max_own = 8;
    struct {
        gva begin;
        std::uint64_t length;
    } own_[max_own];
    unsigned own_count_ = 0;
};

}  // namespace xos::memory
