// Arguments and results of page_tables: protections, status codes, leaves, the frame source.
#pragma once

#include <concepts>
#include <cstdint>
#include <xos/types.hpp>

#include "libxos/arch/page_table_entry.hpp"

namespace xos::paging {

enum class status : std::uint8_t {
    ok,
    out_of_frames,   ///< the frame source had too few table pages
    misaligned,      ///< an address or a length is not a multiple of 4 KiB
    non_canonical,   ///< the range leaves, or spans, the two canonical halves
    occupied,        ///< something is mapped there already
    not_mapped,      ///< there is no tree: create() has not succeeded
    frame_too_wide,  ///< a frame needs more bits than the CPU's physical addresses have
};

/// The bits of a leaf that software chooses. `none` means read and execute for the supervisor.
enum class protection : std::uint64_t {
    none = 0,
    writable = static_cast<std::uint64_t>(arch::entry_flags::writable),
    user = static_cast<std::uint64_t>(arch::entry_flags::user),
    no_execute = static_cast<std::uint64_t>(arch::entry_flags::no_execute),
    all = writable | user | no_execute,
};

constexpr protection operator|(protection a, protection b) {
    return static_cast<protection>(static_cast<std::uint64_t>(a) | static_cast<std::uint64_t>(b));
}
constexpr protection operator&(protection a, protection b) {
    return static_cast<protection>(static_cast<std::uint64_t>(a) & static_cast<std::uint64_t>(b));
}
constexpr arch::entry_flags flags_of(protection p) {
    return static_cast<arch::entry_flags>(p);
}

/// The entry of a present leaf.
/// `frame` is aligned to the size of the level and within the physical width.
constexpr arch::entry leaf_entry(gpa frame, protection p, arch::level size = arch::level::page_4k) {
    const auto large =
        size == arch::level::page_4k ? arch::entry_flags::none : arch::entry_flags::large;
    return {frame, arch::entry_flags::present | large | flags_of(p)};
}

/// A mapping of size_of(size) bytes from `page` to `frame`.
struct leaf_mapping {
    gva page;
    gpa frame;
    arch::level size = arch::level::page_4k;
    arch::entry_flags flags = arch::entry_flags::none;
};

struct cpu_limits {
    unsigned physical_bits = 36;                      ///< 36 to 52: CPUID 0x80000008 EAX[7:0]
    arch::level largest_leaf = arch::level::page_2m;  ///< page_1g if CPUID 0x80000001 EDX[26]
};

/// The source of table pages. `allocate` returns a zeroed page, or gpa{0} when there is none;
/// `release` takes back pages that are all zeros again; `table` makes a page readable and writable
/// for as long as it is allocated.
template <class Source>
concept frame_source = requires(Source& source, gpa page) {
    { source.allocate() } -> std::same_as<gpa>;
    { source.release(page) } -> std::same_as<void>;
    { source.table(page) } -> std::same_as<arch::entry*>;
};

}  // namespace xos::paging
