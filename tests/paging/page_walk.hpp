// A page walker written from the manual, which judges the trees of the tests.
#pragma once

#include <catch2/catch.hpp>
#include <cstdint>
#include <optional>
#include <ostream>
#include <random>
#include <set>
#include <vector>

#include "libxos/arch/page_table_entry.hpp"

namespace page_walk {

using namespace xos;
using arch::level;
using u64 = std::uint64_t;
using generator = std::mt19937_64;

constexpr u64 kib4 = 4096, mib2 = 2u << 20, gib1 = 1u << 30;
constexpr u64 lower_end = u64{1} << 47, upper_start = 0xffff'8000'0000'0000;

inline u64 bytes_of(unsigned l) {
    return l == 1 ? kib4 : l == 2 ? mib2 : l == 3 ? gib1 : gib1 * 512;
}
inline u64 pick(generator& r, u64 below) {
    return r() % below;
}
template <std::size_t N>
u64 one_of(generator& r, const u64 (&values)[N]) {
    return values[pick(r, N)];
}

struct cpu_leaf {
    u64 page;
    unsigned level;
    u64 frame;
    u64 flags;  ///< bits 11:0 and 63:52 of the entry
    auto operator<=>(const cpu_leaf&) const = default;
};

inline std::ostream& operator<<(std::ostream& out, const cpu_leaf& l) {
    return out << std::hex << "{page " << l.page << " level " << l.level << " frame " << l.frame
               << " flags " << l.flags << std::dec << '}';
}

/// SDM vol. 3A, 4.5.4: as the CPU does it, with its reserved-bit checks.
template <class Frames>
class cpu {
  public:
    cpu(const Frames& memory, unsigned bits) : memory_(memory), bits_(bits) {}

    std::optional<cpu_leaf> walk(gpa cr3, u64 address, u64 set = 0) const {
        return follow(cr3, address, 0x20, 0x20 | set);
    }
    /// As the walk would end, but no entry is marked as accessed.
    std::optional<cpu_leaf> peek(gpa cr3, u64 address) const { return follow(cr3, address, 0, 0); }

    std::vector<cpu_leaf> all_leaves(gpa cr3) const {
        std::vector<cpu_leaf> out;
        std::set<u64> seen{cr3.value};
        collect(cr3.value, 4, 0, out, seen);
        if (seen.size() != memory_.in_use()) FAIL("table pages in use that the tree does not hold");
        return out;
    }

  private:
    std::optional<cpu_leaf> follow(gpa cr3, u64 address, u64 mark, u64 set) const {
        if (address >= lower_end && address < upper_start) return std::nullopt;
        u64 table = cr3.value;
        for (unsigned l = 4;; --l) {
            u64& e = memory_.table(gpa(table))[(address >> (12 + 9 * (l - 1))) & 0x1ff].bits;
            if ((e & 1) == 0) return std::nullopt;
            check_reserved(e, l);
            e |= mark;
            if (l == 1 || (e & 0x80)) {
                e |= set;
                return leaf_at(e, l, address & ~(bytes_of(l) - 1));
            }
            if ((e & 0x8000'0000'0000'0006) != 6) FAIL("an inner entry takes permissions away");
            table = e & 0x000f'ffff'ffff'f000;
        }
    }

    void check_reserved(u64 e, unsigned l) const {
        const u64 address = e & 0x000f'ffff'ffff'f000;
        if (bits_ < 52 && address >> bits_) FAIL("reserved: an address beyond the width");
        if (e & 0x7ff0'0000'0000'0000) FAIL("bits 62:52 set by nobody");
        if (l == 4 && (e & 0x80)) FAIL("reserved: PS in a PML4 entry");
        if (l > 1 && (e & 0x80) && (address & (bytes_of(l) - 1) & ~u64{0x1000}))
            FAIL("reserved: low address bits in a large leaf");
    }
    static cpu_leaf leaf_at(u64 e, unsigned l, u64 page) {
        return {page, l, e & 0x000f'ffff'ffff'f000 & ~(bytes_of(l) - 1), e & 0xfff0'0000'0000'0fff};
    }
    void collect(u64 table, unsigned l, u64 base, std::vector<cpu_leaf>& out,
                 std::set<u64>& seen) const {
        const arch::entry* slots = memory_.table(gpa(table));
        for (u64 i = 0; i != 512; ++i) {
            const u64 e = slots[i].bits;
            u64 page = base + i * bytes_of(l);
            if (l == 4 && i >= 256) page |= 0xffff'0000'0000'0000;
            if (e == 0) continue;
            if ((e & 1) == 0) FAIL("a not-present entry that is not zero");
            check_reserved(e, l);
            if (l == 1 || (e & 0x80)) {
                out.push_back(leaf_at(e, l, page));
                continue;
            }
            const u64 next = e & 0x000f'ffff'ffff'f000;
            if (!seen.insert(next).second) FAIL("a table linked twice");
            collect(next, l - 1, page, out, seen);
        }
    }

    const Frames& memory_;
    unsigned bits_;
};

}  // namespace page_walk
