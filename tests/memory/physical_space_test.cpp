#include "libxos/memory/physical_space.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <vector>

using namespace xos;
using memory::physical_space;

TEST_CASE("guest-physical ranges are compact and disjoint and keep the offset in large pages") {
    for (unsigned bits = 36; bits <= 52; bits++) {
        CAPTURE(bits);
        std::mt19937_64 random(bits);
        physical_space space(bits);
        std::uint64_t end_of_last = physical_space::first, bytes = 0;
        for (unsigned i = 0; i < 500; i++) {
            // Host addresses of 47 bits, far above what fits into the narrow widths.
            const hva host{random() % (std::uint64_t{1} << 47) / page_size * page_size};
            const std::uint64_t length = (random() % 4096 + 1) * page_size;
            const gpa at = space.allocate(host, length);
            REQUIRE(at.value != 0);
            CHECK(at.value >= end_of_last);
            CHECK(at.value % large_page_size == host.value % large_page_size);
            end_of_last = at.value + length;
            bytes += length;
        }
        // No more than a large page and an offset are lost at each range.
        CHECK(end_of_last - physical_space::first <= bytes + 500 * 2 * large_page_size);
        CHECK(end_of_last <= std::uint64_t{1} << bits);
    }
}

TEST_CASE("a physical width that is used up says so and stays usable") {
    physical_space space(36);
    constexpr std::uint64_t chunk = std::uint64_t{64} << 20, room = (std::uint64_t{64} - 4) << 30;
    for (std::uint64_t i = 0; i < room / chunk; i++) {
        REQUIRE(space.allocate(hva{i * chunk}, chunk).value == physical_space::first + i * chunk);
    }
    CHECK(space.allocate(hva{0}, page_size) == gpa{0});

    physical_space nearly(36);
    REQUIRE(nearly.allocate(hva{0}, room - large_page_size).value != 0);
    CHECK(nearly.allocate(hva{0}, 2 * large_page_size) == gpa{0});
    CHECK(nearly.allocate(hva{0}, ~std::uint64_t{0}) == gpa{0});
    CHECK(nearly.allocate(hva{0}, large_page_size).value ==
          (std::uint64_t{1} << 36) - large_page_size);
}
