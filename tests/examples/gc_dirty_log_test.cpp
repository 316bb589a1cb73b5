// The log of gc_dirty: what it replays, and what it refuses to.
#include <unistd.h>

#include <catch2/catch.hpp>

#include "gc_dirty/checkpoint_log.hpp"

using namespace gc_dirty;
using Catch::Contains;

namespace {

constexpr std::size_t pages = 300, page = xos::page_size;

std::vector<std::byte> filled(std::size_t with) {
    return std::vector<std::byte>(pages * page, std::byte(with));
}

page_set some(std::initializer_list<std::size_t> which) {
    page_set s(pages);
    for (const std::size_t p : which) s.insert(p);
    return s;
}

/// All pages, then three.
struct two_epochs {
    checkpoint_log log;
    std::vector<std::byte> expected = filled(1);

    two_epochs() {
        page_set all(pages);
        all.fill();
        log.append(all, expected.data());
        const auto changed = some({0, 64, 299});
        const auto second = filled(2);
        changed.for_each([&](std::size_t p) {
            std::fill_n(expected.begin() + static_cast<long>(p * page), page, std::byte{2});
        });
        log.append(changed, second.data());
    }
    void overwrite(off_t at, char with) const {
        REQUIRE(::pwrite(log.descriptor(), &with, 1, at) == 1);
    }
    std::vector<std::byte> replayed() const {
        auto memory = filled(0);
        log.replay(memory);
        return memory;
    }
};

constexpr off_t header_size = 24, entry_size = 8 + page;
constexpr off_t second_epoch = header_size + pages * entry_size + 8;
constexpr off_t log_size = second_epoch + header_size + 3 * entry_size + 8;

}  // namespace

TEST_CASE("a set of pages keeps what is put in") {
    auto s = some({3, 63, 64, 299, 3});
    std::vector<std::size_t> seen;
    s.for_each([&](std::size_t p) { seen.push_back(p); });
    CHECK(seen == std::vector<std::size_t>{3, 63, 64, 299});
    CHECK(s.size() == 4);
    s.fill();
    CHECK(s.size() == pages);
    s.clear();
    CHECK(s.size() == 0);
}

TEST_CASE("a replayed log gives the memory at the end of the last epoch") {
    const two_epochs t;
    CHECK(t.replayed() == t.expected);
    CHECK(::lseek(t.log.descriptor(), 0, SEEK_END) == log_size);
    auto memory = filled(0);
    CHECK(t.log.replay(memory) == 2);
    CHECK(checkpoint_log().replay(memory) == 0);
}

TEST_CASE("a log that was changed is not replayed") {
    const two_epochs t;
    const auto says = [&](const char* text) { CHECK_THROWS_WITH(t.replayed(), Contains(text)); };
    SECTION("contents") {
        t.overwrite(second_epoch + header_size + 8 + 100, 7);
        says("epoch 1 of the log: its checksum");
    }
    SECTION("index of a page") {
        t.overwrite(second_epoch + header_size, 1);
        says("epoch 1 of the log: its checksum");
    }
    SECTION("index far out") {
        t.overwrite(second_epoch + header_size + 5, 1);
        says("a page beyond the memory");
    }
    SECTION("magic") {
        t.overwrite(second_epoch, 'x');
        says("epoch 1 of the log: no header");
    }
    SECTION("number of the epoch") {
        t.overwrite(second_epoch + 8, 4);
        says("another number");
    }
    SECTION("number of pages") {
        t.overwrite(second_epoch + 16 + 3, 1);
        says("more pages than the memory has");
    }
    SECTION("checksum") {
        t.overwrite(log_size - 1, 1);
        says("epoch 1 of the log: its checksum");
    }
    SECTION("cut short") {
        REQUIRE(::ftruncate(t.log.descriptor(), log_size - 1) == 0);
        says("ends in the middle");
    }
}
