#include "libxos/base/page_list.hpp"

#include <array>
#include <catch2/catch.hpp>
#include <random>
#include <vector>

using xos::gpa;
using xos::base::page_list;

namespace {

constexpr std::uint64_t pages = 64, offset = 0x1000'0000;

/// Zeroed pages, numbered from `offset`.
struct memory {
    std::array<std::array<std::uint64_t, xos::page_size / 8>, pages> contents{};

    gpa page(std::uint64_t i) const { return gpa(offset + i * xos::page_size); }
    std::uint64_t* operator()(gpa page) {
        return contents[(page.value - offset) / xos::page_size].data();
    }
    bool is_zero(gpa page) {
        for (std::uint64_t i = 0; i < xos::page_size / 8; i++)
            if ((*this)(page)[i] != 0) return false;
        return true;
    }
};

}  // namespace

TEST_CASE("pages come back last in, first out, and zeroed", "[page_list]") {
    static memory m;
    page_list list;
    std::vector<gpa> expected, outside;
    for (std::uint64_t i = 0; i < pages; i++) outside.push_back(m.page(i));
    std::mt19937_64 random(1);
    for (unsigned n = 0; n < 10000; n++) {
        REQUIRE(list.is_empty() == expected.empty());
        if (expected.empty() || (!outside.empty() && random() % 2)) {
            std::swap(outside[random() % outside.size()], outside.back());
            list.push(outside.back(), m);
            expected.push_back(outside.back());
            outside.pop_back();
            REQUIRE((*m(expected.back()) & 1) == 0);
            continue;
        }
        const gpa page = list.pop(m);
        REQUIRE(page == expected.back());
        REQUIRE(m.is_zero(page));
        expected.pop_back();
        outside.push_back(page);
    }
}

TEST_CASE("the contents of a page in the list stay but for the first word", "[page_list]") {
    static memory m;
    page_list list;
    m(m.page(3))[1] = 7;
    list.push(m.page(3), m);
    list.push(m.page(5), m);
    CHECK(list.pop(m) == m.page(5));
    CHECK(list.pop(m) == m.page(3));
    CHECK(m(m.page(3))[1] == 7);
    CHECK(list.is_empty());
}
