// jemalloc on arenas. In a program of its own: jemalloc is its malloc.
#include <malloc.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <vector>
#include <xos/jemalloc.hpp>
#include <xos/stats.hpp>

#include "tests/guest/containers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t mib = 1 << 20;

/// A block that knows what is in it: its own pattern from the first byte to the last.
struct block {
    unsigned char* at;
    std::size_t bytes;
    unsigned char mark;

    void fill() const { std::memset(at, mark, bytes); }
    bool holds(std::size_t n) const {
        return n == 0 || (at[0] == mark && std::memcmp(at, at + 1, n - 1) == 0);
    }
    bool holds() const { return holds(bytes); }
};

std::size_t some_size(std::mt19937_64& random) {
    const unsigned magnitude = random() % 20;  // up to 1 MiB
    return (random() % (std::size_t{1} << magnitude)) + 1;
}

/// Random calls against a model of what every block must contain.
lines churn(memory::jemalloc_heap& heap, const memory::arena& a, unsigned seed, unsigned rounds) {
    lines wrong;
    std::mt19937_64 random(seed);
    std::vector<block> held;
    const auto check = [&](bool right, const char* what) {
        if (!right) wrong.push_back(what);
    };
    for (unsigned i = 0; i < rounds; i++) {
        const unsigned what = random() % 8;
        if (what < 3 && !held.empty()) {
            std::swap(held[random() % held.size()], held.back());
            check(held.back().holds(), "contents when freed");
            heap.free(held.back().at);
            held.pop_back();
        } else if (what == 3 && !held.empty()) {
            block& b = held[random() % held.size()];
            const std::size_t bytes = some_size(random);
            auto* moved = static_cast<unsigned char*>(heap.reallocate(b.at, bytes));
            if (!moved) continue;
            const std::size_t kept = std::min(b.bytes, bytes);
            b = {moved, bytes, b.mark};
            check(b.holds(kept), "contents after reallocate");
            check(a.owns(moved) && a.owns(moved + bytes - 1), "reallocated elsewhere");
            b.fill();
        } else {
            const std::size_t bytes = some_size(random);
            const std::size_t alignment = std::size_t{1} << random() % 14;
            const bool zeroed = random() % 3 == 0;
            auto* at = static_cast<unsigned char*>(zeroed ? heap.allocate_zeroed(bytes, alignment)
                                                          : heap.allocate(bytes, alignment));
            if (!at) continue;
            block b{at, bytes, 0};
            check(!zeroed || b.holds(), "not zero");
            check(reinterpret_cast<std::uintptr_t>(at) % alignment == 0, "alignment");
            check(a.owns(at) && a.owns(at + bytes - 1), "allocated elsewhere");
            check(memory::jemalloc_heap::usable_size(at) >= bytes, "usable size");
            b.mark = static_cast<unsigned char>(random());
            b.fill();
            held.push_back(b);
        }
    }
    for (const block& b : held) {
        check(b.holds(), "contents at the end");
        heap.free(b.at);
    }
    return wrong;
}

/// Blocks on their way from the thread that allocates to the one that frees.
class channel {
  public:
    void send(block b) {
        std::lock_guard guard(lock_);
        blocks_.push_back(b);
    }
    std::optional<block> receive() {
        std::lock_guard guard(lock_);
        if (blocks_.empty()) return {};
        const block b = blocks_.front();
        blocks_.pop_front();
        return b;
    }

  private:
    std::mutex lock_;
    std::deque<block> blocks_;
};

/// Two threads, each freeing what the other has allocated.
unsigned exchange(memory::jemalloc_heap& heap, unsigned index, channel (&ways)[2]) {
    std::mt19937_64 random(index);
    constexpr unsigned blocks = 1500;
    unsigned wrong = 0, received = 0;
    for (unsigned sent = 0; sent < blocks || received < blocks;) {
        if (sent < blocks) {
            const std::size_t bytes = random() % 3000 + 1;
            block b{static_cast<unsigned char*>(heap.allocate(bytes)), bytes,
                    static_cast<unsigned char>(random())};
            if (!b.at) return ++wrong;
            b.fill();
            ways[index].send(b);
            sent++;
        }
        if (const auto b = ways[1 - index].receive()) {
            wrong += !b->holds();
            heap.free(b->at);
            received++;
        } else {
            std::this_thread::yield();
        }
    }
    return wrong;
}

/// Exit status 7 from a child that can go on using the heap it has inherited.
int fork_and_use(memory::jemalloc_heap& heap, const memory::arena& a) {
    auto* inherited = static_cast<unsigned char*>(heap.allocate(5000));
    const block b{inherited, 5000, 77};
    b.fill();
    const pid_t child = fork();
    if (child == 0) {
        const bool same = b.holds();
        std::memset(inherited, 1, 5000);
        heap.free(inherited);
        _exit(same && churn(heap, a, 5, 200).empty() && a.check() ? 7 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    const bool untouched = b.holds();
    heap.free(inherited);
    return untouched && WIFEXITED(status) ? WEXITSTATUS(status) : -status;
}

}  // namespace

TEST_CASE("a heap on an arena keeps what is written to it") {
    ensure_cell();
    memory::arena a({.bytes = 128 * mib});
    for (const auto caches :
         {memory::jemalloc_heap::caches::per_thread, memory::jemalloc_heap::caches::none}) {
        {
            memory::jemalloc_heap heap(a, {.thread_caches = caches});
            CHECK(churn(heap, a, 1, 2000) == lines{});
            CHECK(in_cell([&] { return churn(heap, a, 2, 2000); }) == lines{});
            CHECK(a.check());
        }
        CHECK(a.check());
        CHECK(a.statistics().allocated == 0);
    }
}

TEST_CASE("threads share a heap inside and outside") {
    ensure_cell();
    memory::arena a({.bytes = 256 * mib});
    std::atomic<unsigned> wrong{0};
    {
        memory::jemalloc_heap heap(a);
        // Twice: the second threads inherit the caches of the first.
        for (unsigned round = 0; round < 2; round++) {
            on_threads(6, [&](unsigned index) {
                if (index % 3 == 0) {
                    wrong += static_cast<unsigned>(churn(heap, a, index, 300).size());
                } else {
                    scoped_entry inside;
                    wrong += static_cast<unsigned>(churn(heap, a, index, 300).size());
                }
            });
        }
        CHECK(wrong == 0);
        CHECK(a.check());
    }
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("a thread frees what another has allocated, on the other side") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    std::atomic<unsigned> wrong{0};
    {
        memory::jemalloc_heap heap(a);
        for (unsigned inside_from : {2u, 1u, 0u}) {
            channel ways[2];
            on_threads(2, [&](unsigned index) {
                std::optional<scoped_entry> inside;
                if (index >= inside_from) inside.emplace();
                wrong += exchange(heap, index, ways);
            });
        }
    }
    CHECK(wrong == 0);
    CHECK(a.check());
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("a destroyed heap takes along what was never freed") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    const auto probe = [&] {
        for (unsigned i = 0; i < 20; i++) {
            memory::jemalloc_heap heap(a);
            for (std::size_t bytes : {10ul, 1000ul, 100'000ul, 3 * mib}) {
                if (!heap.allocate(bytes)) return i;
            }
        }
        return 99u;
    };
    CHECK(probe() == 99);
    CHECK(in_cell(probe) == 99);
    CHECK(a.check());
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("heaps on one arena keep apart") {
    ensure_cell();
    memory::arena a({.bytes = 128 * mib});
    {
        memory::jemalloc_heap one(a);
        auto* kept = static_cast<unsigned char*>(one.allocate(20'000));
        const block b{kept, 20'000, 3};
        b.fill();
        for (unsigned i = 0; i < 5; i++) {
            memory::jemalloc_heap two(a);
            CHECK(in_cell([&] { return churn(two, a, i, 300); }) == lines{});
        }
        CHECK(b.holds());
        one.free(kept);
        CHECK(one.resource() == one.resource());
        memory::jemalloc_heap three(a);
        CHECK(one.resource() != three.resource());
    }
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("a purged heap keeps no more than its administration") {
    ensure_cell();
    memory::arena a({.bytes = 256 * mib});
    memory::jemalloc_heap heap(a);
    const auto probe = [&] {
        std::vector<void*> all;
        for (unsigned i = 0; i < 300; i++) all.push_back(heap.allocate(300'000));
        for (unsigned i = 0; i < 20'000; i++) all.push_back(heap.allocate(500));
        const std::size_t most = a.statistics().allocated;
        for (void* p : all) heap.free(p);
        heap.purge();
        return std::pair(most >= 100 * mib, a.statistics().allocated <= 3 * mib);
    };
    CHECK(probe() == std::pair(true, true));
    CHECK(in_cell(probe) == std::pair(true, true));
    CHECK(a.check());
}

TEST_CASE("an exhausted arena fails as malloc fails, and recovers") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    const auto probe = [&] {
        memory::jemalloc_heap heap(a);
        std::vector<void*> all;
        while (void* p = heap.allocate(100'000)) all.push_back(p);
        const bool most_of_it = all.size() * 100'000 > 45 * mib;
        const bool none = !heap.allocate(8 * mib) && !heap.reallocate(all[0], 8 * mib);
        bool thrown = false;
        try {
            static_cast<void>(heap.resource().allocate(8 * mib));
        } catch (const std::bad_alloc&) {
            thrown = true;
        }
        for (void* p : all) heap.free(p);
        heap.purge();
        void* large = heap.allocate(20 * mib);
        heap.free(large);
        return std::tuple(most_of_it, none, thrown, large != nullptr);
    };
    const auto outside = probe(), inside = in_cell(probe);
    CHECK(outside == std::tuple(true, true, true, true));
    CHECK(inside == outside);
    CHECK(a.statistics().allocated == 0);
    void* rest = a.allocate(64 * mib);
    CHECK(errno_of([&] { memory::jemalloc_heap none(a); }) == ENOMEM);
    a.free(rest, 64 * mib);
}

TEST_CASE("an exhausted arena can leave the rest to Linux") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    const auto probe = [&] {
        memory::jemalloc_heap heap(a, {.policy = memory::when_exhausted::use_linux});
        std::vector<block> all;
        for (unsigned i = 0; i < 100; i++) {
            all.push_back({static_cast<unsigned char*>(heap.allocate(mib)), mib,
                           static_cast<unsigned char>(i)});
            if (!all.back().at) return std::pair(false, false);
            all.back().fill();
        }
        bool right = true, both = a.owns(all.front().at) && !a.owns(all.back().at);
        for (const block& b : all) {
            right &= b.holds();
            heap.free(b.at);
        }
        heap.purge();
        return std::pair(right, both);
    };
    CHECK(probe() == std::pair(true, true));
    CHECK(in_cell(probe) == std::pair(true, true));
    CHECK(a.check());
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("large alignments and sizes") {
    ensure_cell();
    memory::arena a({.bytes = 2048 * mib});
    const auto probe = [&] {
        memory::jemalloc_heap heap(a);
        lines wrong;
        for (std::size_t alignment : {mib, 8 * mib, 512 * mib}) {
            auto* p = static_cast<char*>(heap.allocate(100, alignment));
            if (!p || reinterpret_cast<std::uintptr_t>(p) % alignment || !a.owns(p))
                wrong.push_back("alignment " + std::to_string(alignment));
            else
                p[99] = 1;
            heap.free(p);
            heap.purge();
        }
        for (std::size_t bytes : {9 * mib, 200 * mib}) {
            auto* p = static_cast<char*>(heap.allocate_zeroed(bytes));
            if (!p || p[0] || p[bytes / 2] || p[bytes - 1])
                wrong.push_back("size " + std::to_string(bytes));
            else
                p[bytes / 2] = 1;
            heap.free(p);
        }
        if (heap.allocate(1025 * mib)) wrong.push_back("more than an extent holds");
        return wrong;
    };
    CHECK(probe() == lines{});
    CHECK(in_cell(probe) == lines{});
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("a fork's child has its own copy of a heap") {
    ensure_cell();
    memory::arena a({.bytes = 128 * mib});
    memory::jemalloc_heap heap(a);
    CHECK(fork_and_use(heap, a) == 7);
    CHECK(in_cell([&] { return fork_and_use(heap, a); }) == 7);
    CHECK(churn(heap, a, 9, 500) == lines{});
}

TEST_CASE("a fork while other threads allocate") {
    ensure_cell();
    memory::arena a({.bytes = 256 * mib});
    memory::jemalloc_heap heap(a);
    std::atomic<bool> end{false};
    std::atomic<unsigned> wrong{0};
    lines statuses;
    on_threads(3, [&](unsigned index) {
        scoped_entry inside;
        if (index) {
            for (unsigned i = 0; !end; i++)
                wrong += static_cast<unsigned>(churn(heap, a, i, 30).size());
            return;
        }
        for (unsigned i = 0; i < 5; i++) {
            const pid_t child = fork();
            if (child == 0) _exit(churn(heap, a, i, 50).empty() ? 7 : 1);
            statuses.push_back(status_of(child));
        }
        end = true;
    });
    CHECK(statuses == lines(5, "exit 7"));
    CHECK(wrong == 0);
    CHECK(a.check());
}

TEST_CASE("standard containers live in a heap") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    {
        memory::jemalloc_heap heap(a);
        const auto sum = in_cell([&] { return fill_containers(heap.resource(), a); });
        CHECK(sum == std::pair(std::size_t{3000 * 2999 / 2}, true));
    }
    CHECK(a.statistics().allocated == 0);
}

TEST_CASE("extents come and go inside without an exit") {
    ensure_cell();
    memory::arena a({.bytes = 256 * mib});
    memory::jemalloc_heap heap(a);
    const auto round = [&] {
        // Beyond 8 MiB jemalloc keeps nothing back.
        void* p = heap.allocate(20 * mib);
        *static_cast<volatile char*>(p) = 1;
        heap.free(p);
    };
    CHECK(in_cell([&] {
              for (unsigned i = 0; i < 20; i++) round();
              const auto before = thread_exits();
              for (unsigned i = 0; i < 50; i++) round();
              return thread_exits() - before;
          }) == 0);
}

namespace {

struct everything {
    memory::arena& pool;

    lines blocks(unsigned seed) const {
        lines wrong;
        std::mt19937_64 random(seed);
        std::vector<std::unique_ptr<std::vector<unsigned char>>> held;
        for (unsigned i = 0; i < 400; i++) {
            held.push_back(std::make_unique<std::vector<unsigned char>>(
                random() % 4 ? some_size(random) : 300'000, static_cast<unsigned char>(i)));
            if (held.size() > 30) held.erase(held.begin() + static_cast<long>(random() % 30));
        }
        for (const auto& v : held) {
            if (!std::all_of(v->begin(), v->end(), [&](auto c) { return c == v->front(); }))
                wrong.push_back("contents");
        }
        auto* large = static_cast<char*>(std::calloc(1, 30 * mib));
        if (!large || !pool.owns(large) || large[29 * mib]) wrong.push_back("large");
        std::free(large);
        return wrong;
    }
};

memory::arena& install(std::size_t bytes, memory::when_exhausted policy) {
    ensure_cell();
    auto& pool = *new memory::arena({.bytes = bytes});
    memory::use_for_malloc(pool, policy);
    return pool;
}

}  // namespace

TEST_CASE("malloc's memory is an arena's") {
    memory::arena& pool = install(1024 * mib, memory::when_exhausted::fail);
    const everything e{pool};
    CHECK(e.blocks(1) == lines{});
    CHECK(in_cell([&] { return e.blocks(2); }) == lines{});
    std::atomic<unsigned> wrong{0};
    on_threads(6, [&](unsigned index) {
        std::optional<scoped_entry> inside;
        if (index % 2) inside.emplace();
        wrong += static_cast<unsigned>(e.blocks(index).size());
        // Nobody has had memory for this size before.
        auto* mine = static_cast<char*>(std::malloc(6 * mib));
        wrong += !pool.owns(mine);
        std::free(mine);
    });
    CHECK(wrong == 0);
    CHECK(pool.check());
    CHECK(errno_of([&] { memory::use_for_malloc(pool); }) == EALREADY);
}

TEST_CASE("a thread that only frees gives back what malloc had before its arena") {
    std::vector<void*> before(200);
    for (void*& p : before) p = std::malloc(100'000);
    const memory::arena& pool = install(256 * mib, memory::when_exhausted::fail);
    CHECK(std::none_of(before.begin(), before.end(), [&](void* p) { return pool.owns(p); }));
    std::size_t half = before.size() / 2;
    on_threads(1, [&](unsigned) {
        for (std::size_t i = 0; i < half; i++) std::free(before[i]);
    });
    on_threads(1, [&](unsigned) {
        scoped_entry inside;
        for (std::size_t i = half; i < before.size(); i++) std::free(before[i]);
    });
    CHECK(pool.check());
}

TEST_CASE("malloc's memory is an arena's also after a fork") {
    memory::arena& pool = install(512 * mib, memory::when_exhausted::fail);
    const everything e{pool};
    const auto probe = [&] {
        const auto kept = std::make_unique<std::vector<int>>(10'000, 5);
        const pid_t child = fork();
        if (child == 0) {
            const bool same = (*kept)[9999] == 5;
            _exit(same && e.blocks(3).empty() && pool.check() ? 7 : 1);
        }
        return std::pair(status_of(child), e.blocks(4));
    };
    CHECK(probe() == std::pair(std::string("exit 7"), lines{}));
    CHECK(in_cell(probe) == std::pair(std::string("exit 7"), lines{}));
}

TEST_CASE("malloc fails when its arena is exhausted") {
    memory::arena& pool = install(64 * mib, memory::when_exhausted::fail);
    const auto probe = [&] {
        errno = 0;
        void* p = std::malloc(100 * mib);
        const int error = errno;
        bool thrown = false;
        try {
            ::operator delete(::operator new(200 * mib));
        } catch (const std::bad_alloc&) {
            thrown = true;
        }
        void* small = std::malloc(100);
        std::free(small);
        return std::tuple(p == nullptr, error, thrown, small != nullptr);
    };
    CHECK(probe() == std::tuple(true, ENOMEM, true, true));
    CHECK(in_cell(probe) == std::tuple(true, ENOMEM, true, true));
    CHECK(pool.check());
}

TEST_CASE("malloc goes on with Linux when its arena is exhausted, if it may") {
    memory::arena& pool = install(64 * mib, memory::when_exhausted::use_linux);
    const auto probe = [&] {
        auto* p = static_cast<char*>(std::malloc(100 * mib));
        if (!p) return false;
        p[99 * mib] = 1;
        const bool elsewhere = !pool.owns(p);
        std::free(p);
        return elsewhere;
    };
    CHECK(probe());
    CHECK(in_cell(probe));
    CHECK(pool.check());
}

TEST_CASE("an arena that is too small for malloc is refused") {
    ensure_cell();
    memory::arena a({.bytes = 64 * mib});
    void* most = a.allocate(60 * mib);
    CHECK(errno_of([&] { memory::use_for_malloc(a); }) == ENOMEM);
    a.free(most, 60 * mib);
    CHECK(a.statistics().allocated == 0);
}
