// Anonymous memory: mmap and its family inside, against Linux.
//
// The fuzzer makes the same random calls natively and in the cell and looks at every page: what may
// be done there, what it holds, and which signal says no. Only what Linux promises is compared, so
// addresses are compared as "somewhere", and pages that are gone are looked at once, before another
// mapping may take their place.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <random>
#include <xos/stats.hpp>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t page = 4096;

/// Touches memory that may not be there, and tells which signal came with which code.
thread_local sigjmp_buf refused;
thread_local int refused_signal, refused_code;
thread_local void* refused_at;

void on_refusal(int signal, siginfo_t* info, void*) {
    refused_signal = signal;
    refused_code = info->si_code;
    refused_at = info->si_addr;
    siglongjmp(refused, 1);
}

class catching {
  public:
    catching() {
        struct sigaction wanted {};
        wanted.sa_sigaction = on_refusal;
        wanted.sa_flags = SA_SIGINFO | SA_NODEFER;
        sigaction(SIGSEGV, &wanted, &before_[0]);
        sigaction(SIGBUS, &wanted, &before_[1]);
    }
    ~catching() {
        sigaction(SIGSEGV, &before_[0], nullptr);
        sigaction(SIGBUS, &before_[1], nullptr);
    }

  private:
    struct sigaction before_[2];
};

std::string touch(volatile std::uint64_t* at, bool write) {
    if (sigsetjmp(refused, 0)) {
        return "signal " + std::to_string(refused_signal) + "/" + std::to_string(refused_code) +
               (refused_at == at ? "" : " elsewhere");
    }
    const std::uint64_t held = *at;
    if (write) *at = held + 1;
    return std::to_string(held);
}

std::string run_code(char* at) {
    if (sigsetjmp(refused, 0)) return "x-" + std::to_string(refused_code);
    reinterpret_cast<void (*)()>(at)();
    return "x";
}

struct region {
    char* base = nullptr;
    std::vector<bool> there;  ///< by page
    bool plain = true;        ///< one mapping, one protection, as mremap wants it
};

class fuzzer {
  public:
    fuzzer(unsigned seed, unsigned steps) : random_(seed), steps_(steps) {
        FILE* f = tmpfile();
        fd_ = dup(fileno(f));
        fclose(f);
        std::vector<char> data(64 * page);
        for (std::size_t i = 0; i < data.size(); i++) data[i] = static_cast<char>(i / page + 1);
        (void)!write(fd_, data.data(), data.size());
    }
    ~fuzzer() {
        for (region& r : regions_) {
            for (unsigned p = 0; p < r.there.size(); p++) {
                if (r.there[p]) munmap(r.base + p * page, page);
            }
        }
        close(fd_);
    }

    lines run() {
        const catching handlers;
        for (unsigned i = 0; i < steps_; i++) {
            step();
            if (i % 16 == 15) look_at_all();
        }
        look_at_all();
        ask_a_child();
        return log_;
    }

  private:
    unsigned pick(unsigned low, unsigned high) {
        return std::uniform_int_distribution<unsigned>(low, high)(random_);
    }
    int any_protection() {
        constexpr int all[] = {PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE, PROT_READ | PROT_WRITE,
                               PROT_READ | PROT_EXEC};
        return all[pick(0, 4)];
    }
    void note(const std::string& what) { log_.push_back(what); }
    void note(const std::string& what, long result) {
        note(what + "=" + (result == -1 ? "errno " + std::to_string(errno) : "ok"));
    }
    void note(const std::string& what, void* result) { note(what, reinterpret_cast<long>(result)); }

    region& any_region() { return regions_[pick(0, count - 1)]; }
    std::pair<unsigned, unsigned> any_part(const region& r) {
        const unsigned pages = static_cast<unsigned>(r.there.size());
        if (pick(0, 3) == 0) return {0, pages};
        const unsigned first = pick(0, pages - 1);
        return {first, pick(1, pages - first)};
    }
    bool whole(const region& r, unsigned first, unsigned n) const {
        for (unsigned i = 0; i < n; i++) {
            if (!r.there[first + i]) return false;
        }
        return true;
    }

    void step() {
        region& r = any_region();
        if (!r.base) return map(r);
        const auto [first, n] = any_part(r);
        // Somebody else's mapping may be where ours has a hole.
        if (!whole(r, first, n)) return;
        char* at = r.base + first * page;
        const std::size_t bytes = n * page;
        switch (pick(0, 10)) {
            case 0:
                note("munmap", munmap(at, bytes));
                // Before anything else may be mapped there.
                for (unsigned i = 0; i < n; i += n / 8 + 1) note(touch(word(r, first + i), false));
                for (unsigned i = 0; i < n; i++) r.there[first + i] = false;
                r.plain = false;
                if (std::find(r.there.begin(), r.there.end(), true) == r.there.end()) r = {};
                return;
            case 1:
            case 2: {
                const int p = any_protection();
                note("mprotect " + std::to_string(p), mprotect(at, bytes, p));
                if (n != r.there.size()) r.plain = false;
                return;
            }
            case 3:
                note("dontneed", madvise(at, bytes, MADV_DONTNEED));
                return;
            case 4:
                if (r.plain) remap(r);
                return;
            case 5: {
                const int p = any_protection();
                note("fixed " + std::to_string(p),
                     mmap(at, bytes, p, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
                r.plain = false;
                return;
            }
            case 6: {
                if (pick(0, 2)) return;
                const int shared = pick(0, 1) ? MAP_SHARED : MAP_PRIVATE;
                note("file", mmap(at, bytes, PROT_READ | PROT_WRITE, shared | MAP_FIXED, fd_,
                                  pick(0, 20) * page));
                r.plain = false;
                return;
            }
            case 7:
            case 8:
                for (unsigned i = 0; i < n; i += n / 32 + 1) note(touch(word(r, first + i), true));
                return;
            case 9:
                return by_system_call(r, first);
            case 10:
                return code(r, first);
        }
    }

    volatile std::uint64_t* word(const region& r, unsigned p) {
        return reinterpret_cast<volatile std::uint64_t*>(r.base + p * page + 8 * (p % 500));
    }

    void map(region& r) {
        constexpr unsigned sizes[] = {1, 2, 5, 16, 33, 200, 512, 700};
        const unsigned pages = sizes[pick(0, 7)];
        const int p = any_protection();
        void* at = mmap(nullptr, pages * page - pick(0, 1), p,
                        MAP_PRIVATE | MAP_ANONYMOUS | (pick(0, 1) ? MAP_NORESERVE : 0), -1, 0);
        note("mmap " + std::to_string(pages), at);
        if (at == MAP_FAILED) return;
        r.base = static_cast<char*>(at);
        r.there.assign(pages, true);
        r.plain = true;
    }

    void remap(region& r) {
        const unsigned pages = pick(1, 2 * static_cast<unsigned>(r.there.size()) + 1);
        void* at = mremap(r.base, r.there.size() * page, pages * page, MREMAP_MAYMOVE);
        note("mremap " + std::to_string(pages), at);
        if (at == MAP_FAILED) return;
        r.base = static_cast<char*>(at);
        r.there.assign(pages, true);
    }

    /// Linux reads and writes memory that the guest has perhaps not touched yet.
    void by_system_call(const region& r, unsigned p) {
        if (!r.there[p]) return;
        if (touch(word(r, p), true).starts_with("signal")) return;
        int ends[2];
        if (pipe(ends) != 0) return;
        char back[512];
        note("write", write(ends[1], r.base + p * page, sizeof back));
        note("read", read(ends[0], r.base + p * page + 2048, sizeof back));
        close(ends[0]);
        close(ends[1]);
        note(std::to_string(std::memcmp(r.base + p * page, r.base + p * page + 2048, 512)));
    }

    void code(const region& r, unsigned p) {
        if (!r.there[p]) return;
        char* at = r.base + p * page;
        if (touch(reinterpret_cast<std::uint64_t*>(at), true).starts_with("signal")) return;
        at[0] = '\xc3';
        note("protect", mprotect(at, page, PROT_READ | PROT_EXEC));
        note(run_code(at));
        note("protect", mprotect(at, page, PROT_READ | PROT_WRITE));
    }

    /// Every page of a small region, some pages of a large one: each refusal is a signal.
    void look_at_all() {
        for (const region& r : regions_) {
            std::string all;
            const unsigned step = static_cast<unsigned>(r.there.size()) / 24 + 1;
            for (unsigned p = pick(0, step - 1); p < r.there.size(); p += pick(1, 2 * step - 1)) {
                if (r.there[p]) all += touch(word(r, p), false) + " ";
            }
            note(all);
        }
    }

    /// A fork's child sees what its parent saw, and changes only its own.
    void ask_a_child() {
        const pid_t child = fork();
        if (child == 0) {
            const std::size_t before = log_.size();
            look_at_all();
            std::size_t sum = 0;
            for (std::size_t i = before; i < log_.size(); i++)
                sum = sum * 31 + std::hash<std::string>()(log_[i]);
            for (const region& r : regions_) {
                for (unsigned p = 0; p < r.there.size(); p += 7) {
                    if (r.there[p]) touch(word(r, p), true);
                }
            }
            _exit(static_cast<int>(sum % 250));
        }
        int status = 0;
        waitpid(child, &status, 0);
        note("child " + std::to_string(status));
        // Shared file pages show what the child wrote, private ones do not.
        look_at_all();
    }

    static constexpr unsigned count = 6;
    std::mt19937 random_;
    unsigned steps_;
    int fd_;
    region regions_[count];
    lines log_;
};

lines fuzz(unsigned seed, unsigned steps) {
    fuzzer f(seed, steps);
    return f.run();
}

/// The first difference with what came before it.
std::string difference(const lines& a, const lines& b) {
    for (std::size_t i = 0; i < std::max(a.size(), b.size()); i++) {
        const std::string left = i < a.size() ? a[i] : "nothing",
                          right = i < b.size() ? b[i] : "nothing";
        if (left == right) continue;
        std::string text = "line " + std::to_string(i) + ": " + left + " | " + right + " after";
        for (std::size_t j = i > 4 ? i - 4 : 0; j < i; j++) text += "\n  " + a[j];
        return text;
    }
    return "";
}

void expect_same(unsigned first_seed, unsigned seeds, unsigned steps) {
    for (unsigned seed = first_seed; seed < first_seed + seeds; seed++) {
        // Natively in a child: the parent's cell may run already.
        const lines native = fuzz(seed, steps);
        static std::vector<std::pair<unsigned, lines>> kept;
        kept.emplace_back(seed, native);
        if (seed + 1 < first_seed + seeds) continue;
        for (const auto& [s, expected] : kept) {
            const auto seen = in_cell([s = s, steps] { return fuzz(s, steps); });
            INFO("seed " << s);
            CHECK(difference(expected, seen) == "");
        }
    }
}

}  // namespace

TEST_CASE("random calls of mmap's family do what Linux does") {
    expect_same(1, 8, 150);
}

TEST_CASE("more random calls of mmap's family do what Linux does", "[.][soak]") {
    // Another stretch of seeds each time that it runs.
    static const unsigned first = static_cast<unsigned>(time(nullptr)) % 100000 * 20 + 1000;
    expect_same(first, 20, 200);
}

TEST_CASE("anonymous memory is mapped and unmapped without an exit") {
    ensure_cell();
    const auto exits = in_cell([] {
        const auto once = [](std::size_t bytes) {
            auto* p = static_cast<volatile char*>(
                mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            for (std::size_t at = 0; at < bytes; at += page) p[at] = 1;
            mprotect(const_cast<char*>(p), page, PROT_READ);
            madvise(const_cast<char*>(p) + page, page, MADV_DONTNEED);
            munmap(const_cast<char*>(p), bytes);
        };
        for (std::size_t bytes : {4 * page, 64 * page, 512 * page}) once(bytes);
        const auto before = thread_exits();
        for (std::size_t bytes : {4 * page, 64 * page, 512 * page}) once(bytes);
        return thread_exits() - before;
    });
    CHECK(exits == 0);
}

TEST_CASE("a reservation is made, used piece by piece and given up without an exit") {
    ensure_cell();
    const auto [exits, right] = in_cell([] {
        constexpr std::size_t reserved = 1024 * page;
        bool right = true;
        const auto once = [&] {
            auto* p = static_cast<volatile char*>(mmap(
                nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
            for (std::size_t at = 0; at < 8 * page; at += page) {
                mprotect(const_cast<char*>(p) + at, page, PROT_READ | PROT_WRITE);
                right = right && p[at] == 0;
                p[at] = 1;
            }
            munmap(const_cast<char*>(p), reserved);
        };
        // What was used is zeroed by Linux, which makes an exit, when nothing else is left.
        once();
        const auto before = thread_exits();
        once();
        return std::pair(thread_exits() - before, right);
    });
    CHECK(exits == 0);
    CHECK(right);
}

TEST_CASE("reused memory is zero whoever wrote it") {
    const auto probe = [] {
        lines wrong;
        int ends[2];
        if (pipe(ends) != 0) return wrong;
        for (unsigned round = 0; round < 50; round++) {
            const std::size_t bytes = (round % 7 + 1) * page;
            auto* p = static_cast<char*>(
                mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            for (std::size_t i = 0; i < bytes; i++) {
                if (p[i]) wrong.push_back(std::to_string(round) + "@" + std::to_string(i));
            }
            // Half of the rounds only Linux writes to it.
            if (round % 2) {
                std::memset(p, 0x5a, bytes);
            } else {
                (void)!write(ends[1], "abcdefgh", 8);
                (void)!read(ends[0], p + bytes - 8, 8);
            }
            munmap(p, bytes);
        }
        close(ends[0]);
        close(ends[1]);
        return wrong;
    };
    CHECK(same(probe) == lines{});
}

TEST_CASE("threads map and unmap at the same time and keep what is theirs") {
    const auto probe = [] {
        std::atomic<unsigned> wrong{0};
        on_threads(6, [&](unsigned index) {
            std::mt19937 random(index);
            struct mine {
                std::uint64_t* at = nullptr;
                std::size_t words = 0;
            } held[8];
            for (unsigned i = 0; i < 300; i++) {
                mine& m = held[random() % 8];
                if (m.at) {
                    for (std::size_t w = 0; w < m.words; w += 512) {
                        if (m.at[w] != (index << 16 | w)) wrong++;
                    }
                    munmap(m.at, m.words * 8);
                    m.at = nullptr;
                    continue;
                }
                m.words = (random() % 40 + 1) * 512;
                m.at =
                    static_cast<std::uint64_t*>(mmap(nullptr, m.words * 8, PROT_READ | PROT_WRITE,
                                                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
                for (std::size_t w = 0; w < m.words; w += 512) {
                    if (m.at[w] != 0) wrong++;
                    m.at[w] = index << 16 | w;
                }
                if (i % 100 == 50) {
                    const pid_t child = fork();
                    if (child == 0) {
                        auto* own = mmap(nullptr, 5 * page, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                        std::memset(own, 1, 5 * page);
                        _exit(m.at[0] == (index << 16 | 0) ? 0 : 1);
                    }
                    int status = 0;
                    waitpid(child, &status, 0);
                    if (status != 0) wrong++;
                }
            }
            for (mine& m : held) {
                if (m.at) munmap(m.at, m.words * 8);
            }
        });
        return wrong.load();
    };
    CHECK(same(probe) == 0);
}

TEST_CASE("an arena that is full leaves the rest to Linux") {
    start({.mode = wanted_mode(), .process_arena = 64 << 20});
    const auto seen = in_cell([] {
        lines wrong;
        std::vector<char*> all;
        for (unsigned i = 0; i < 100; i++) {
            auto* p = static_cast<char*>(
                mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            if (p == MAP_FAILED) {
                wrong.push_back("failed");
                break;
            }
            p[12345] = static_cast<char>(i);
            all.push_back(p);
        }
        for (unsigned i = 0; i < all.size(); i++) {
            if (all[i][12345] != static_cast<char>(i)) wrong.push_back(std::to_string(i));
            if (munmap(all[i], 1 << 20) != 0) wrong.push_back("munmap");
        }
        return wrong;
    });
    CHECK(seen == lines{});
}

TEST_CASE("a window of pages is resident before it is handed out") {
    start({.mode = wanted_mode(),
           .process_pager = residency::window,
           .process_window = 16,
           .transport = wanted_transport()});
    const auto [resident, exits] = in_cell([] {
        constexpr unsigned count = 160;
        char* mapped[count];
        munmap(mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), page);
        const auto before = thread_exits();
        for (char*& p : mapped)
            p = static_cast<char*>(
                mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        const auto exits = thread_exits() - before;
        unsigned resident = 0;
        for (char* p : mapped) {
            unsigned char is = 0;
            mincore(p, page, &is);
            resident += is & 1;
        }
        return std::pair(resident, exits);
    });
    CHECK(resident == 160);
    CHECK(exits >= 9);
    CHECK(exits <= 11);
}

TEST_CASE("without an arena Linux serves everything") {
    start({.mode = wanted_mode(), .process_arena = 0});
    const auto exits = in_cell([] {
        const auto before = thread_exits();
        munmap(mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), page);
        return thread_exits() - before;
    });
    CHECK(exits == 2);
}
