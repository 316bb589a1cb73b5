// Views whose pages come and go by themselves.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <random>
#include <xos/memory.hpp>
#include <xos/pager.hpp>
#include <xos/stats.hpp>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t page = 4096, mib = 1 << 20;

/// Keeps contents in a file: the handler makes system calls.
struct file_pager : pager {
    int fd = memfd_create("pages", 0);
    std::atomic<unsigned> fills{0}, dirty_evictions{0}, clean_evictions{0};

    explicit file_pager(std::size_t bytes) { (void)!ftruncate(fd, static_cast<off_t>(bytes)); }
    ~file_pager() override { close(fd); }
    bool fill(std::size_t offset, std::span<std::byte> to) noexcept override {
        fills++;
        return pread(fd, to.data(), to.size(), static_cast<off_t>(offset)) ==
               static_cast<ssize_t>(to.size());
    }
    void evict(std::size_t offset, std::span<const std::byte> from, bool dirty) noexcept override {
        (dirty ? dirty_evictions : clean_evictions)++;
        if (dirty) (void)!pwrite(fd, from.data(), from.size(), static_cast<off_t>(offset));
    }
};

volatile long& word(const paged_view& v, std::size_t n) {
    return reinterpret_cast<volatile long*>(v.begin().value)[n];
}

/// Random reads, writes and evictions against a vector.
lines follow_model(paged_view& v, unsigned seed) {
    lines wrong;
    std::mt19937_64 random(seed);
    std::vector<long> model(v.bytes() / sizeof(long));
    for (unsigned i = 0; i < 3000; i++) {
        const std::size_t n = random() % model.size();
        if (i % 97 == 0) {
            const std::size_t at = random() % v.bytes();
            v.evict(v.begin() + at, random() % (v.bytes() - at) + 1);
        } else if (random() % 2) {
            model[n] = static_cast<long>(random());
            word(v, n) = model[n];
        } else if (word(v, n) != model[n]) {
            wrong.push_back(std::to_string(n));
        }
    }
    return wrong;
}

}  // namespace

TEST_CASE("pages come from a pager and go back to it") {
    ensure_cell();
    memory::arena frames({.bytes = 64 * mib});
    constexpr std::size_t bytes = 4 * mib;
    for (auto policy : {paging_policy::demand, paging_policy::prepage, paging_policy::huge}) {
        file_pager file(bytes);
        const auto wrong = in_cell([&] {
            paged_view v({.bytes = bytes, .policy = policy}, frames, &file);
            auto wrong = follow_model(v, 5);
            if (v.resident() == 0 || v.faults() < v.resident()) wrong.push_back("counts");
            return wrong;
        });
        CHECK(wrong == lines{});
        CHECK(file.dirty_evictions > 0);
        CHECK(file.fills == file.dirty_evictions + file.clean_evictions);
        CHECK(frames.statistics().allocated == 0);
        CHECK(frames.check());
    }
}

TEST_CASE("a page that was only read is evicted clean") {
    ensure_cell();
    memory::arena frames({.bytes = 64 * mib});
    file_pager file(64 * page);
    in_cell([&] {
        paged_view v({.bytes = 64 * page}, frames, &file);
        for (unsigned p = 0; p < 10; p++) {
            if (word(v, p * 512) != 0) file.fills = 1000;
        }
        word(v, 3 * 512) = 1;
        return v.evict(v.begin(), v.bytes());
    });
    CHECK(file.clean_evictions == 9);
    CHECK(file.dirty_evictions == 1);
}

TEST_CASE("a window comes at one fault") {
    ensure_cell();
    memory::arena frames({.bytes = 64 * mib});
    const auto faults = in_cell([&] {
        paged_view demand({.bytes = mib}, frames);
        paged_view window({.bytes = mib, .policy = paging_policy::prepage, .window = 128 << 10},
                          frames);
        paged_view huge({.bytes = 4 * mib, .policy = paging_policy::huge}, frames);
        std::vector<std::size_t> faults;
        for (paged_view* v : {&demand, &window, &huge}) {
            for (std::size_t n = 0; n < v->bytes() / 8; n += 512) word(*v, n) = 1;
            faults.push_back(v->faults());
        }
        return faults;
    });
    CHECK(faults == std::vector<std::size_t>{256, 8, 2});
}

TEST_CASE("threads fault and evict at the same time") {
    ensure_cell();
    memory::arena frames({.bytes = 64 * mib});
    constexpr unsigned threads = 3;
    constexpr std::size_t words = 40 * page / 8;
    file_pager file(40 * page);
    std::atomic<unsigned> wrong{0};
    std::atomic<bool> end{false};
    in_cell([&] {
        paged_view v({.bytes = 40 * page, .policy = paging_policy::prepage, .window = 8192}, frames,
                     &file);
        std::thread evictor([&] {
            std::mt19937 random(9);
            while (!end) {
                v.evict(v.begin() + random() % v.bytes() / page * page, page);
                std::this_thread::yield();
            }
        });
        std::vector<std::thread> users;
        for (unsigned t = 0; t < threads; t++) {
            users.emplace_back([&, t] {
                std::mt19937 random(t);
                std::vector<long> model(words);
                for (unsigned i = 0; i < 1500; i++) {
                    // Each thread has words of its own on every page.
                    const std::size_t n = random() % (words / threads) * threads + t;
                    if (n >= words) continue;
                    if (random() % 2) {
                        model[n] = static_cast<long>(random());
                        word(v, n) = model[n];
                    } else if (word(v, n) != model[n]) {
                        wrong++;
                    }
                }
            });
        }
        for (auto& u : users) u.join();
        end = true;
        evictor.join();
        return 0;
    });
    CHECK(wrong == 0);
    CHECK(frames.statistics().allocated == 0);
}

TEST_CASE("what a pager refuses is the access's fault") {
    ensure_cell();
    struct refusing : pager {
        bool fill(std::size_t offset, std::span<std::byte>) noexcept override {
            return offset != 3 * page;
        }
        void evict(std::size_t, std::span<const std::byte>, bool) noexcept override {}
    } refuses;
    memory::arena frames({.bytes = 64 * mib});
    const auto end = in_child([&] {
        scoped_entry inside;
        paged_view v({.bytes = 16 * page}, frames, &refuses);
        word(v, 2 * 512) = 1;
        word(v, 3 * 512) = 1;
        return 0;
    });
    CHECK(end.status.find("11") != std::string::npos);
    for (std::size_t window : {std::size_t{0}, page, 3 * page, 2 * mib}) {
        CHECK(errno_of([&] {
                  paged_view v({.bytes = page, .policy = paging_policy::prepage, .window = window},
                               frames);
              }) == EINVAL);
    }
}

TEST_CASE("a paged view that finds no memory refuses the access") {
    ensure_cell();
    memory::arena frames({.bytes = 64 * mib});
    const auto end = in_child([&] {
        scoped_entry inside;
        while (frames.allocate(page)) {
        }
        paged_view v({.bytes = page}, frames);
        word(v, 0) = 1;
        return 0;
    });
    CHECK(end.status.find("11") != std::string::npos);
}
