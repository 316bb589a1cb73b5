#include "libxos/memory/bit_tree.hpp"

#include <catch2/catch.hpp>
#include <cstdint>
#include <random>
#include <set>
#include <vector>

using xos::memory::bit_tree;
using u64 = std::uint64_t;

TEST_CASE("a bit tree is a set that knows its least number", "[bit_tree]") {
    for (const u64 limit : {u64{1}, u64{2}, u64{64}, u64{65}, u64{4096}, u64{4097}, u64{300'000}}) {
        CAPTURE(limit);
        std::vector<u64> words(bit_tree::words(limit));
        bit_tree tree;
        tree.attach(words.data(), limit);
        std::set<u64> model;
        std::mt19937_64 random(limit);
        for (unsigned n = 0; n < 20'000; n++) {
            // Few at first, so that whole words become empty again.
            const u64 number = random() % limit;
            if (random() % 100 < (n < 10'000 ? 52 : 48)) {
                tree.insert(number);
                model.insert(number);
            } else if (!model.empty()) {
                const u64 gone = random() % 2 ? *model.begin() : number;
                tree.erase(gone);  // which may not be in it
                model.erase(gone);
            }
            if (!model.empty() && tree.least() != *model.begin()) FAIL("after " << n);
        }
        std::vector<u64> found;
        CHECK(tree.check(0, limit - 1, [&](u64 number) { return found.push_back(number), true; }));
        CHECK(found == std::vector<u64>(model.begin(), model.end()));
        for (const u64 number : found) tree.erase(number);
        CHECK(words == std::vector<u64>(words.size()));
    }
}

TEST_CASE("a bit tree's check sees a level that says what is not so", "[bit_tree]") {
    std::vector<u64> words(bit_tree::words(10'000));
    bit_tree tree;
    tree.attach(words.data(), 10'000);
    for (const u64 number : {5, 700, 9'999}) tree.insert(number);
    const auto is_sound = [&] {
        unsigned count = 0;
        return tree.check(0, 9'999, [&](u64) { return ++count <= 3; }) && count == 3;
    };
    CHECK(is_sound());
    unsigned unseen = 0;
    for (u64 bit = 0; bit < words.size() * 64; bit++) {
        words[bit / 64] ^= u64{1} << bit % 64;
        unseen += is_sound();
        words[bit / 64] ^= u64{1} << bit % 64;
    }
    // The bits of the upper levels beyond the last word of the one below.
    CHECK(unseen == (192 - 157) + (64 - 3));
}
