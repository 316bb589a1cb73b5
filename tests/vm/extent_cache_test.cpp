#include "libxos/vm/arenas/extent_cache.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <new>
#include <random>
#include <thread>
#include <vector>

using xos::vm::extent_caches;

namespace {

constexpr std::uint64_t pages = 4096;

/// The caches with memory behind them.
struct caches : extent_caches {
    explicit caches(unsigned vcpus)
        : bits(bytes_of_bits(pages) / 8),
          slots(::operator new(bytes_of_slots(vcpus), std::align_val_t(64))) {
        std::memset(slots, 0, bytes_of_slots(vcpus));
        attach(bits.data(), slots, vcpus);
    }
    ~caches() { ::operator delete(slots, std::align_val_t(64)); }

    std::vector<std::uint64_t> bits;
    void* slots;
};

}  // namespace

TEST_CASE("extents that do not lie like a block do not fit", "[extent_cache]") {
    CHECK(extent_caches::fits(0, 1));
    CHECK(extent_caches::fits(7, 1));
    CHECK(extent_caches::fits(4, 3));
    CHECK(extent_caches::fits(64, 64));
    CHECK_FALSE(extent_caches::fits(0, 0));
    CHECK_FALSE(extent_caches::fits(2, 3));
    CHECK_FALSE(extent_caches::fits(32, 64));
    CHECK_FALSE(extent_caches::fits(0, 65));
}

TEST_CASE("a page is claimed once", "[extent_cache]") {
    caches c(1);
    REQUIRE(c.claim(8, 4));
    CHECK(c.is_claimed(0, 64));
    CHECK_FALSE(c.is_claimed(0, 8));
    CHECK_FALSE(c.claim(8, 4));
    CHECK_FALSE(c.claim(0, 16));
    // What failed has left nothing behind.
    CHECK_FALSE(c.is_claimed(0, 8));
    CHECK_FALSE(c.is_claimed(12, 64));
    c.release(8, 4);
    CHECK(c.claim(0, 16));
}

TEST_CASE("an extent is taken by its size, and by its own vCPU", "[extent_cache]") {
    caches c(2);
    REQUIRE(c.claim(4, 2));
    CHECK(c.keep(0, 4, 2).count == 0);
    CHECK(c.take(0, 1).count == 0);
    CHECK(c.take(1, 2).count == 0);
    const auto found = c.take(0, 2);
    CHECK(found.first == 4);
    CHECK(found.count == 2);
    CHECK_FALSE(c.is_claimed(4, 2));
    CHECK(c.take(0, 2).count == 0);
}

TEST_CASE("what makes room stays claimed", "[extent_cache]") {
    caches c(1);
    std::uint64_t kept = 0;
    extent_caches::extent victim;
    while (victim.count == 0) {
        REQUIRE(c.claim(kept, 1));
        victim = c.keep(0, kept, 1);
        kept++;
    }
    CHECK(kept == 8);
    CHECK(c.is_claimed(victim.first, 1));
    unsigned emptied = 0;
    c.empty(1, [&](const extent_caches::extent&) { emptied++; });
    CHECK(emptied == 7);
    CHECK(c.is_claimed(0, pages));
    c.release(victim.first, 1);
    CHECK_FALSE(c.is_claimed(0, pages));
}

TEST_CASE("threads lose no page and share none", "[extent_cache]") {
    constexpr unsigned vcpus = 4, rounds = 20'000;
    caches c(vcpus);
    // A page's owner, by its first user; what the caches hold has none.
    std::vector<std::atomic<unsigned>> owner(pages);
    std::atomic<unsigned> wrong{0}, done{0};
    const auto own = [&](std::uint64_t first, std::uint64_t count, unsigned who) {
        for (std::uint64_t p = first; p < first + count; p++) {
            unsigned nobody = 0;
            if (!owner[p].compare_exchange_strong(nobody, who)) wrong++;
        }
    };
    const auto disown = [&](std::uint64_t first, std::uint64_t count) {
        for (std::uint64_t p = first; p < first + count; p++) owner[p] = 0;
    };
    std::vector<std::thread> threads;
    for (unsigned v = 0; v < vcpus; v++) {
        threads.emplace_back([&, v] {
            std::mt19937 random(v);
            std::vector<extent_caches::extent> mine;
            for (std::uint64_t i = 0; i < 64; i++) mine.push_back({(v * 64 + i) * 16, 1u << i % 4});
            for (const auto& e : mine) own(e.first, e.count, v + 1);
            for (unsigned i = 0; i < rounds; i++) {
                if (random() % 2 && !mine.empty()) {
                    const auto e = mine.back();
                    mine.pop_back();
                    disown(e.first, e.count);
                    if (!c.claim(e.first, e.count)) wrong++;
                    const auto victim = c.keep(v, e.first, e.count);
                    if (!victim.count) continue;
                    c.release(victim.first, victim.count);
                    own(victim.first, victim.count, v + 1);
                    mine.push_back(victim);
                } else if (const auto e = c.take(v, 1u << random() % 4); e.count) {
                    own(e.first, e.count, v + 1);
                    mine.push_back(e);
                }
            }
            done++;
        });
    }
    // Whoever empties them all owns what it finds.
    std::uint64_t emptied = 0;
    while (done < vcpus) {
        c.empty(vcpus, [&](const extent_caches::extent& e) {
            own(e.first, e.count, vcpus + 1);
            emptied += e.count;
        });
        std::this_thread::yield();
    }
    for (auto& t : threads) t.join();
    c.empty(vcpus, [&](const extent_caches::extent& e) { own(e.first, e.count, vcpus + 1); });
    CHECK(wrong == 0);
    CHECK_FALSE(c.is_claimed(0, pages));
    std::uint64_t owned = 0;
    for (const auto& o : owner) owned += o != 0;
    CHECK(owned == vcpus * 64 / 4 * (1 + 2 + 4 + 8));
}
