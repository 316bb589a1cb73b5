// The program's break, served inside, against Linux's.
//
// malloc of this program uses the break, too. So what a probe does there lies above what malloc
// has, ends where it began, and allocates nothing meanwhile.
#include <fcntl.h>
#include <malloc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <random>
#include <xos/stats.hpp>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t page = 4096, mebibyte = std::size_t{1} << 20;

void start_with_break() {
    start({.mode = wanted_mode(), .serve_break = true, .transport = wanted_transport()});
}

char* top() {
    return static_cast<char*>(sbrk(0));
}

/// Moves the break there, relative to where it began; 0 or errno.
int move_to(char* base, std::size_t offset) {
    return brk(base + offset) == 0 ? 0 : errno;
}

/// Looks at eight bytes of each page, which are somewhere else in the next.
bool is_zero(const char* from, const char* to) {
    for (; from + 8 <= to; from += page + 24) {
        std::uint64_t word;
        std::memcpy(&word, from, sizeof word);
        if (word) return false;
    }
    return true;
}

char* page_above(char* p) {
    return reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(p) + page - 1) & ~(page - 1));
}

/// Everything that a random walk of the break sees, as a number a step.
std::array<std::uint64_t, 100> walk(unsigned seed) {
    std::array<std::uint64_t, 100> seen{};
    std::mt19937 random(seed);
    char* const base = top();
    std::size_t at = 0;
    for (auto& what : seen) {
        const std::size_t before = at;
        // Mostly small steps, sometimes past every window.
        const std::size_t reach = random() % 32 == 0  ? 12 * mebibyte
                                  : random() % 4 == 0 ? 3 * mebibyte
                                                      : 300'000;
        at = random() % reach;
        what = static_cast<std::uint64_t>(move_to(base, at));
        what = what << 40 | static_cast<std::uint64_t>(top() - base);
        if (at <= before) continue;
        // What is new is zero, but for the rest of a page that was there.
        char* const fresh = page_above(base + before);
        if (fresh < base + at && !is_zero(fresh, base + at)) what |= std::uint64_t{1} << 62;
        for (char* p = base; p < base + at; p += page + 123) {
            what = what * 31 + static_cast<unsigned char>(*p);
            *p = static_cast<char>(random());
        }
        base[at - 1] = 77;
    }
    move_to(base, 0);
    return seen;
}

struct usage {
    std::size_t resident = 0, data = 0;
};
usage memory_in_use() {
    char text[128] = {};
    const int fd = open("/proc/self/statm", 0);
    (void)!read(fd, text, sizeof text - 1);
    close(fd);
    usage u;
    sscanf(text, "%*u %zu %*u %*u %*u %zu", &u.resident, &u.data);
    return {u.resident * page, u.data * page};
}
std::size_t resident_bytes() {
    return memory_in_use().resident;
}

}  // namespace

TEST_CASE("the break walks as Linux's does") {
    std::array<std::uint64_t, 100> native[3];
    for (unsigned seed = 0; seed < 3; seed++) native[seed] = walk(seed);
    start_with_break();
    for (unsigned seed = 0; seed < 3; seed++) {
        const auto seen = in_cell([seed] { return walk(seed); });
        for (unsigned i = 0; i < seen.size(); i++) {
            INFO("seed " << seed << " step " << i);
            REQUIRE(seen[i] == native[seed][i]);
        }
    }
}

TEST_CASE("the break moves without an exit") {
    start_with_break();
    const auto exits = in_cell([] {
        char* const base = top();
        const auto once = [&] {
            for (std::size_t n = 1; n <= 12; n++) {
                move_to(base, n * 132'000);
                std::memset(base + (n - 1) * 132'000, 1, 132'000);
            }
            move_to(base, 0);
        };
        once();
        const auto before = thread_exits();
        for (unsigned i = 0; i < 10; i++) once();
        return thread_exits() - before;
    });
    CHECK(exits == 0);
}

TEST_CASE("what Linux wrote above the break is gone when it comes back") {
    start_with_break();
    const bool zero = in_cell([] {
        int ends[2];
        if (pipe(ends) != 0) return false;
        char* const base = page_above(top());
        char* const begin = top();
        move_to(base, 100 * mebibyte);
        (void)!write(ends[1], "abcdefgh", 8);
        // A place in another chunk, which the guest has never touched.
        (void)!read(ends[0], base + 90 * mebibyte, 8);
        close(ends[0]);
        close(ends[1]);
        move_to(base, 60 * mebibyte);
        move_to(base, 100 * mebibyte);
        const bool is = is_zero(base + 90 * mebibyte, base + 90 * mebibyte + page);
        brk(begin);
        return is;
    });
    CHECK(zero);
}

TEST_CASE("mappings and protections in the heap are Linux's") {
    const auto probe = [] {
        std::array<long, 12> seen{};
        char* const begin = top();
        char* const base = page_above(begin);
        unsigned n = 0;
        const auto note = [&](long value) { seen[n++] = value; };
        note(move_to(base, 64 * page));
        std::memset(base, 1, 64 * page);
        note(mprotect(base + 40 * page, 8 * page, PROT_READ));
        note(munmap(base + 50 * page, page));
        note(mmap(base + 70 * page, page, PROT_READ,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) == base + 70 * page);
        note(move_to(base, 80 * page));  // no room
        note(move_to(base, 32 * page));
        note(move_to(base, 60 * page));
        note(is_zero(base + 32 * page, base + 60 * page));
        std::memset(base + 32 * page, 2, 28 * page);
        note(munmap(base + 70 * page, page));
        note(move_to(base, 80 * page));
        note(is_zero(base + 60 * page, base + 80 * page));
        brk(begin);
        return seen;
    };
    const auto native = probe();
    start_with_break();
    CHECK(in_cell(probe) == native);
    CHECK(in_cell([] { return walk(9); }) == walk(9));
}

TEST_CASE("a large heap that shrinks gives its memory back") {
    start_with_break();
    const auto [before, full, after] = in_cell([] {
        char* const base = top();
        const std::size_t before = resident_bytes();
        move_to(base, 300 * mebibyte);
        for (std::size_t at = 0; at < 300 * mebibyte; at += page) base[at] = 1;
        const std::size_t full = resident_bytes();
        move_to(base, 0);
        return std::array<std::size_t, 3>{before, full, resident_bytes()};
    });
    CHECK(full > before + 250 * mebibyte);
    CHECK(after < before + 100 * mebibyte);
}

TEST_CASE("a limit of the data segment holds for the break") {
    const auto probe = [] {
        const pid_t child = fork();
        if (child == 0) {
            char* const base = top();
            rlimit limit{};
            getrlimit(RLIMIT_DATA, &limit);
            limit.rlim_cur = memory_in_use().data + 8 * mebibyte;
            setrlimit(RLIMIT_DATA, &limit);
            const bool fits = move_to(base, 4 * mebibyte) == 0;
            const bool refused = move_to(base, 16 * mebibyte) == ENOMEM;
            const bool unmoved = top() == base + 4 * mebibyte;
            _exit(fits + 2 * refused + 4 * unmoved);
        }
        return status_of(child);
    };
    const auto native = probe();
    start_with_break();
    CHECK(in_cell(probe) == native);
    CHECK(native == "exit 7");
}

TEST_CASE("a child of a fork has a break of its own") {
    start_with_break();
    const bool sound = in_cell([] {
        char* const base = page_above(top());
        char* const begin = top();
        move_to(base, 2 * mebibyte);
        std::memset(base, 1, 2 * mebibyte);
        move_to(base, mebibyte);
        const pid_t child = fork();
        if (child == 0) {
            bool right = top() == base + mebibyte;
            move_to(base, 3 * mebibyte);
            right =
                right && is_zero(base + mebibyte, base + 3 * mebibyte) && base[mebibyte - 1] == 1;
            std::memset(base, 2, 3 * mebibyte);
            free(malloc(400'000));
            _exit(right ? 0 : 1);
        }
        const bool right = status_of(child) == "exit 0" && top() == base + mebibyte;
        move_to(base, 2 * mebibyte);
        const bool kept = base[0] == 1 && is_zero(base + mebibyte, base + 2 * mebibyte);
        brk(begin);
        return right && kept;
    });
    CHECK(sound);
}

TEST_CASE("outside and inside in turn have one break") {
    start_with_break();
    char* const base = page_above(top());
    char* const begin = top();
    bool sound = true;
    for (unsigned i = 1; i < 20; i++) {
        const std::size_t more = i * 150'000;
        in_cell([&] {
            sound =
                sound && move_to(base, more) == 0 && is_zero(base + (i - 1) * page, base + more);
            std::memset(base, 1, more);
            return 0;
        });
        sound = sound && top() == base + more && move_to(base, more + mebibyte) == 0 &&
                is_zero(page_above(base + more), base + more + mebibyte);
        std::memset(base, 1, more + mebibyte);
        sound = sound && move_to(base, i * page) == 0;
    }
    brk(begin);
    CHECK(sound);
}

TEST_CASE("threads share malloc's heap on the break") {
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_MMAP_MAX, 0);
    start_with_break();
    const unsigned wrong = in_cell([] {
        std::atomic<unsigned> wrong{0};
        on_threads(4, [&](unsigned index) {
            std::mt19937 random(index);
            struct {
                unsigned char* at = nullptr;
                std::size_t bytes = 0;
            } held[16];
            for (unsigned i = 0; i < 400; i++) {
                auto& h = held[random() % 16];
                const auto mine = static_cast<unsigned char>(index + 1);
                for (std::size_t b = 0; b < h.bytes; b += 1000) wrong += h.at[b] != mine;
                free(h.at);
                h.bytes = random() % 400'000 + 1;
                h.at = static_cast<unsigned char*>(calloc(h.bytes, 1));
                for (std::size_t b = 0; b < h.bytes; b += 1000) wrong += h.at[b] != 0;
                std::memset(h.at, mine, h.bytes);
            }
            for (auto& h : held) free(h.at);
        });
        return wrong.load();
    });
    CHECK(wrong == 0);
}
