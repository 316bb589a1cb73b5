// Arenas.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <list>
#include <map>
#include <random>
#include <vector>
#include <xos/memory.hpp>
#include <xos/stats.hpp>
#include <xos/vm.hpp>

#include "tests/guest/containers.hpp"
#include "tests/guest/probe.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t page = 4096, mib = 1 << 20;

/// Random allocations with their contents; every other operation outside.
lines churn(memory::arena& a, unsigned seed, unsigned rounds) {
    struct extent {
        std::uint64_t* at;
        std::size_t bytes;
        std::uint64_t mark;
    };
    lines wrong;
    std::mt19937_64 random(seed);
    std::vector<extent> held;
    for (unsigned i = 0; i < rounds; i++) {
        if (!held.empty() && random() % 5 < 2) {
            const std::size_t n = random() % held.size();
            const extent e = held[n];
            for (std::size_t w = 0; w < e.bytes / 8; w += 512) {
                if (e.at[w] != e.mark) wrong.push_back("contents");
            }
            // Sometimes in two parts.
            const std::size_t first =
                e.bytes > page && random() % 2 ? random() % (e.bytes / page - 1) * page + page : 0;
            if (first && !a.free(e.at, first)) wrong.push_back("free of a part");
            if (!a.free(reinterpret_cast<char*>(e.at) + first, e.bytes - first))
                wrong.push_back("free");
            held[n] = held.back();
            held.pop_back();
        } else {
            const std::size_t bytes =
                (random() % 4 ? random() % 20 + 1 : random() % 700 + 1) * page;
            const bool zeroed = random() % 2;
            auto* at = static_cast<std::uint64_t*>(
                a.allocate(bytes, zeroed ? memory::contents::zeroed : memory::contents::any));
            if (!at) continue;
            for (std::size_t w = 0; zeroed && w < bytes / 8; w++) {
                if (at[w]) {
                    wrong.push_back("not zero");
                    break;
                }
            }
            const std::uint64_t mark = random();
            for (std::size_t w = 0; w < bytes / 8; w += 512) at[w] = mark;
            at[bytes / 8 - 1] = 1;
            held.push_back({at, bytes, mark});
            if (bytes == page) at[0] = mark;
        }
    }
    for (const extent& e : held) {
        if (!a.free(e.at, e.bytes)) wrong.push_back("last free");
    }
    return wrong;
}

}  // namespace

TEST_CASE("an arena hands out extents that are nobody else's") {
    ensure_cell();
    memory::arena a({.bytes = 128 * mib});
    CHECK(churn(a, 1, 1500) == lines{});
    CHECK(in_cell([&] { return churn(a, 2, 1500); }) == lines{});
    CHECK(a.check());
    const auto s = a.statistics();
    CHECK(s.allocated == 0);
    CHECK(s.free == 128 * mib);
    CHECK(s.usable == 128 * mib);
    CHECK(s.largest_free >= 64 * mib);
}

TEST_CASE("threads share an arena inside and outside") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    std::atomic<unsigned> wrong{0};
    on_threads(6, [&](unsigned index) {
        if (index % 3 == 0) {
            wrong += static_cast<unsigned>(churn(a, index, 300).size());
        } else {
            scoped_entry inside;
            wrong += static_cast<unsigned>(churn(a, index, 300).size());
        }
    });
    CHECK(wrong == 0);
    CHECK(a.check());
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("an arena takes back only what it has given") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib}), other({.bytes = 64 * mib});
    const auto probe = [&] {
        char* p = static_cast<char*>(a.allocate(10 * page));
        std::vector<bool> answers{a.free(p + 1, page),        a.free(p, 0),
                                  other.free(p, 10 * page),   a.free(&answers, page),
                                  a.free(p, ~std::size_t{0}), a.free(p, std::size_t{1} << 40),
                                  a.free(p - page, 2 * page), a.free(p + 4 * page, 2 * page),
                                  a.free(p + 4 * page, page), a.free(p, 10 * page),
                                  a.free(p, 4 * page),        a.free(p + 6 * page, 4 * page),
                                  a.free(p, 10 * page)};
        return answers;
    };
    const std::vector<bool> expected{false, false, false, false, false, false, false,
                                     true,  false, false, true,  true,  false};
    CHECK(probe() == expected);
    CHECK(in_cell(probe) == expected);
    CHECK(a.statistics().allocated == 0);
    CHECK(a.allocate(0) == nullptr);
    CHECK(a.allocate(huge_page_size + 1) == nullptr);
    CHECK(a.allocate(128 * mib) == nullptr);
    CHECK(errno_of([] { memory::arena none({.bytes = 0}); }) == EINVAL);
    CHECK(errno_of([] { memory::arena far({.bytes = 64 * mib, .node = 63}); }) == EINVAL);
}

TEST_CASE("an exhausted arena says so and recovers") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    const auto filled = in_cell([&] {
        std::vector<void*> all;
        while (void* p = a.allocate(page)) all.push_back(p);
        const std::size_t n = all.size();
        // Every second page: nothing larger is left although half is free.
        std::sort(all.begin(), all.end());
        for (std::size_t i = 0; i < all.size(); i += 2) a.free(all[i], page);
        const bool two = a.allocate(2 * page) != nullptr;
        for (std::size_t i = 1; i < all.size(); i += 2) a.free(all[i], page);
        return std::pair(n, two);
    });
    CHECK(filled == std::pair(64 * mib / page, false));
    CHECK(a.statistics().largest_free == 64 * mib);
    CHECK(a.check());
}

TEST_CASE("extents are aligned and their frames are where views can map them") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    const gva view = vm::reserve(4 * mib);
    const auto seen = in_cell([&] {
        bool aligned = true;
        for (std::size_t bytes : {page, 3 * page, 8 * page, 2 * mib, 5 * mib}) {
            const auto at = reinterpret_cast<std::uint64_t>(a.allocate(bytes));
            aligned &= at % std::bit_ceil(bytes) == 0;
        }
        auto* p = static_cast<volatile long*>(a.allocate(2 * mib, memory::contents::zeroed));
        vm::batch b;
        b.map(view, 2 * mib, a.frame_of(const_cast<long*>(p)), vm::access::read_write,
              vm::leaf::page_2m);
        must(b.commit());
        auto* q = reinterpret_cast<volatile long*>(view.value);
        q[777] = 12345;
        return std::tuple(aligned, p[777], vm::query(view).size == vm::leaf::page_2m);
    });
    CHECK(seen == std::tuple(true, 12345l, true));
    long on_stack = 0;
    CHECK_FALSE(a.owns(&on_stack));
    CHECK(a.frame_of(&on_stack) == gpa{0});
}

TEST_CASE("allocating and freeing inside makes no exit") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    CHECK(in_cell([&] {
              a.free(a.allocate(page), page);
              const auto before = thread_exits();
              for (unsigned i = 0; i < 100; i++) {
                  void* p = a.allocate((i + 1) * page, memory::contents::zeroed);
                  a.free(p, (i + 1) * page);
              }
              return thread_exits() - before;
          }) == 0);
}

TEST_CASE("dirty memory beyond the watermark goes back to Linux") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib, .keep_dirty = 4 * mib});
    const auto probe = [&] {
        auto* p = static_cast<char*>(a.allocate(16 * mib));
        std::memset(p, 1, 16 * mib);
        a.free(p, 16 * mib);
        return a.statistics();
    };
    for (const auto& s : {probe(), in_cell(probe)}) {
        CHECK(s.free - s.clean_free <= 4 * mib);
        CHECK(s.allocated == 0);
    }
    CHECK(a.trim() <= 4 * mib);
    CHECK(a.statistics().clean_free == 64 * mib);
}

TEST_CASE("free memory is zeroed in the background") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib, .zero_in_background = true});
    in_cell([&] {
        auto* p = static_cast<char*>(a.allocate(9 * mib));
        std::memset(p, 1, 9 * mib);
        a.free(p, 9 * mib);
        return 0;
    });
    CHECK(eventually([&] { return a.statistics().clean_free == 64 * mib; }));
    CHECK(a.check());
}

TEST_CASE("populated arenas are resident") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib, .populate = true});
    auto* p = static_cast<char*>(a.allocate(32 * mib));
    std::vector<unsigned char> resident(32 * mib / page);
    REQUIRE(mincore(p, 32 * mib, resident.data()) == 0);
    std::size_t n = 0;
    for (unsigned char r : resident) n += r & 1;
    CHECK(n == resident.size());
}

TEST_CASE("an arena that is given up makes room for the next") {
    ensure_cell();
    for (unsigned i = 0; i < 100; i++) {
        memory::arena a({.bytes = 64 * mib});
        auto* p = static_cast<volatile char*>(a.allocate(page, memory::contents::zeroed));
        if (p[17] != 0) FAIL("not zero");
        p[17] = 1;
    }
    std::list<memory::arena> many;
    int error = 0;
    for (unsigned i = 0; i < 65 && !error; i++)
        error = errno_of([&] { many.emplace_back(memory::arena::options{.bytes = 64 * mib}); });
    CHECK(error == ENOSPC);
    CHECK(many.size() == 64);
}

TEST_CASE("standard containers live in an arena") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    const auto sum = in_cell([&] {
        memory::resource large(a);
        std::pmr::unsynchronized_pool_resource small(&large);
        return fill_containers(small, a);
    });
    CHECK(sum == std::pair(std::size_t{3000 * 2999 / 2}, true));
    CHECK(a.statistics().allocated == 0);
    memory::resource one(a), two(a);
    CHECK(one == two);
    CHECK_THROWS_AS(static_cast<void>(one.allocate(std::size_t{1} << 40)), std::bad_alloc);
    void* p = one.allocate(10, 64 * 1024);
    CHECK(reinterpret_cast<std::uint64_t>(p) % (64 * 1024) == 0);
    one.deallocate(p, 10, 64 * 1024);
}

TEST_CASE("a fork's child has its own copy of an arena") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    const auto seen = in_cell([&] {
        auto* p = static_cast<volatile long*>(a.allocate(page));
        p[0] = 41;
        const pid_t child = fork();
        if (child == 0) {
            p[0] = p[0] + 1;
            void* more = a.allocate(page);
            _exit(p[0] == 42 && more && a.free(more, page) && a.check() ? 7 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        return std::pair(WEXITSTATUS(status), long{p[0]});
    });
    CHECK(seen == std::pair(7, 41l));
}
