// The three kinds of address a cell deals with, and nothing that converts one into another.
//
// A guest-virtual address equals the host-virtual address of the same byte for everything Linux
// manages, but not for views; a guest-physical address is compact and never equals either. A mix-up
// compiles silently when all three are integers, so each is a type of its own.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <compare>
#include <cstddef>
#include <cstdint>

namespace xos {

namespace detail {

template <class Tag>
struct address {
    std::uint64_t value = 0;

    constexpr address() = default;
    explicit constexpr address(std::uint64_t v) : value(v) {}

    friend constexpr auto operator<=>(address, address) = default;
    constexpr address operator+(std::uint64_t n) const { return address(value + n); }
    constexpr address operator-(std::uint64_t n) const { return address(value - n); }
    constexpr std::uint64_t operator-(address other) const { return value - other.value; }
    constexpr address align_down(std::uint64_t to) const { return address(value & ~(to - 1)); }
    constexpr address align_up(std::uint64_t to) const {
        return address((value + to - 1) & ~(to - 1));
    }
    constexpr bool is_aligned(std::uint64_t to) const { return (value & (to - 1)) == 0; }
};

}  // namespace detail

using gva = detail::address<struct gva_tag>;  ///< guest-virtual: what code in the cell dereferences
using gpa = detail::address<struct gpa_tag>;  ///< guest-physical: what guest page tables hold
using hva =
    detail::address<struct hva_tag>;  ///< host-virtual: what the process dereferences in host mode

// Bytes of the leaves of page tables (Intel SDM vol. 3A, 4.5).
inline constexpr std::size_t page_size = 4096;
inline constexpr std::size_t large_page_size = 2u << 20;
inline constexpr std::size_t huge_page_size = 1u << 30;

}  // namespace xos

#endif  // C++20
