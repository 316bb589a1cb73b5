// Entries of the x86-64 4-level page tables, as the CPU reads them.
//
// The formats are those of the Intel SDM vol. 3A, chapter "Paging", section 4.5.4 and tables 4-15
// to 4-20 (5.5.4 and 5-15 to 5-20 where the chapter is numbered 5).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <xos/types.hpp>

namespace xos::arch {

/// Levels count up from the leaves and are named after the size that one leaf of the level maps;
/// the root (PML4) has no leaves.
enum class level : unsigned { page_4k = 1, page_2m = 2, page_1g = 3, root = 4 };

inline constexpr std::size_t entries_per_table = 512;

constexpr level below(level l) {
    return static_cast<level>(static_cast<unsigned>(l) - 1);
}
constexpr unsigned shift_of(level l) {
    return 3 + 9 * static_cast<unsigned>(l);
}
constexpr std::uint64_t size_of(level l) {
    return std::uint64_t{1} << shift_of(l);
}

constexpr std::size_t index_of(gva address, level l) {
    return (address.value >> shift_of(l)) % entries_per_table;
}

constexpr bool is_canonical(gva address) {
    return static_cast<std::uint64_t>(static_cast<std::int64_t>(address.value << 16) >> 16) ==
           address.value;
}

enum class entry_flags : std::uint64_t {
    none = 0,
    present = 1u << 0,
    writable = 1u << 1,
    user = 1u << 2,
    write_through = 1u << 3,
    cache_disable = 1u << 4,
    accessed = 1u << 5,
    dirty = 1u << 6,
    large = 1u << 7,   ///< PS: a leaf, at the 2 MiB and 1 GiB levels
    pat_4k = 1u << 7,  ///< the same bit in a 4 KiB leaf
    global = 1u << 8,
    software_9 = 1u << 9,
    software_10 = 1u << 10,
    software_11 = 1u << 11,
    software_52 = std::uint64_t{1} << 52,
    pat_large = 1u << 12,  ///< inside address_mask: only in 2 MiB and 1 GiB leaves
    no_execute = std::uint64_t{1} << 63,
};

constexpr entry_flags operator|(entry_flags a, entry_flags b) {
    return static_cast<entry_flags>(static_cast<std::uint64_t>(a) | static_cast<std::uint64_t>(b));
}
constexpr entry_flags operator&(entry_flags a, entry_flags b) {
    return static_cast<entry_flags>(static_cast<std::uint64_t>(a) & static_cast<std::uint64_t>(b));
}
constexpr entry_flags operator^(entry_flags a, entry_flags b) {
    return static_cast<entry_flags>(static_cast<std::uint64_t>(a) ^ static_cast<std::uint64_t>(b));
}
constexpr entry_flags operator~(entry_flags a) {
    return static_cast<entry_flags>(~static_cast<std::uint64_t>(a));
}
constexpr bool any(entry_flags f) {
    return f != entry_flags::none;
}

inline constexpr std::uint64_t address_mask = 0x000f'ffff'ffff'f000;

struct entry {
    std::uint64_t bits = 0;

    constexpr entry() = default;
    explicit constexpr entry(std::uint64_t b) : bits(b) {}
    constexpr entry(gpa frame, entry_flags f) : bits(frame.value | static_cast<std::uint64_t>(f)) {}

    friend constexpr bool operator==(entry, entry) = default;

    /// Everything outside the address field; pat_large is inside it.
    constexpr entry_flags flags() const { return static_cast<entry_flags>(bits & ~address_mask); }
    constexpr bool has(entry_flags f) const { return any(static_cast<entry_flags>(bits) & f); }
    constexpr bool is_present() const { return has(entry_flags::present); }
    constexpr bool is_leaf(level l) const {
        return is_present() &&
               (l == level::page_4k || (l != level::root && has(entry_flags::large)));
    }
    /// The frame that a leaf maps, or the table that any other entry refers to.
    constexpr gpa frame(level l) const {
        const gpa field(bits & address_mask);
        return is_leaf(l) ? field.align_down(size_of(l)) : field;
    }
};
static_assert(sizeof(entry) == 8);

// The CPU walks live tables and sets accessed and dirty bits at any time. So an entry is read and
// written whole, and bits are changed by a locked instruction, which does not lose the CPU's own
// changes. A store is a release: a table is complete before the entry that publishes it.

inline entry load(entry& slot) {
    return entry(std::atomic_ref(slot.bits).load(std::memory_order_acquire));
}
inline void store(entry& slot, entry value) {
    std::atomic_ref(slot.bits).store(value.bits, std::memory_order_release);
}
inline entry exchange(entry& slot, entry value) {
    return entry(std::atomic_ref(slot.bits).exchange(value.bits, std::memory_order_acq_rel));
}
/// On failure, `expected` becomes what the slot holds.
inline bool compare_exchange(entry& slot, entry& expected, entry value) {
    std::uint64_t held = expected.bits;  // std::atomic_ref would keep it in memory
    const bool done = __atomic_compare_exchange_n(&slot.bits, &held, value.bits, false,
                                                  __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    expected.bits = held;
    return done;
}
/// Returns what the slot held before.
inline entry clear_flags(entry& slot, entry_flags f) {
    return entry(std::atomic_ref(slot.bits).fetch_and(static_cast<std::uint64_t>(~f),
                                                      std::memory_order_acq_rel));
}

}  // namespace xos::arch
