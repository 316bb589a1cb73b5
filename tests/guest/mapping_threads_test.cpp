// Many threads map, protect, remap and unmap at random, each beside a model of what it has; forks
// in the middle of it.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <xos/memory.hpp>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t page = 4096;
using word = volatile std::uint64_t;

/// Mappings of one thread. Nothing here allocates: malloc would map, too.
class mapper {
  public:
    explicit mapper(unsigned number) : number_(number), random_(number) {}
    ~mapper() {
        for (auto& m : held_) {
            for (unsigned p = 0; p < m.pages; p++) {
                if (m.state[p] != absent) munmap(m.base + p * page, page);
            }
        }
    }

    void step() {
        mapping& m = held_[pick(count)];
        if (!m.pages) return map(m);
        const unsigned first = pick(m.pages), n = 1 + pick(m.pages - first);
        switch (pick(8)) {
            case 0:
            case 1:
                return unmap(m, 0, m.pages);
            case 2:
                return unmap(m, first, n);
            case 3:
                return protect(m, first, n);
            case 4:
                return discard(m, first, n);
            case 5:
                return remap(m);
            case 6:
                return replace(m, first, n);
            default:
                return look(m);
        }
    }

    void look_at_all() {
        for (auto& m : held_) look(m);
    }

    /// In the child of a fork, which has what its parent had.
    bool is_sound_in_child() {
        look_at_all();
        for (unsigned i = 0; i < 20; i++) step();
        return wrong_ == 0;
    }

    unsigned wrong() const { return wrong_; }

  private:
    static constexpr unsigned count = 6, most_pages = 80;
    enum state : std::uint8_t { absent, readable, writable };

    struct mapping {
        char* base = nullptr;
        unsigned pages = 0;
        std::uint64_t value[most_pages];
        std::uint8_t state[most_pages];
    };

    unsigned pick(unsigned n) { return static_cast<unsigned>(random_() % n); }
    void expect(bool right) { wrong_ += !right; }
    static word& word_of(const mapping& m, unsigned p) {
        return *reinterpret_cast<word*>(m.base + p * page + 8 * (p % 512));
    }

    void write(mapping& m, unsigned p) {
        m.value[p] = std::uint64_t{number_} << 32 | ++written_;
        word_of(m, p) = m.value[p];
    }
    void begin(mapping& m, unsigned first, unsigned n) {
        for (unsigned p = first; p < first + n; p++) {
            m.state[p] = writable;
            m.value[p] = 0;
            expect(word_of(m, p) == 0);
            if (pick(2)) write(m, p);
        }
    }

    void map(mapping& m) {
        constexpr unsigned sizes[] = {1, 1, 1, 2, 3, 4, 16, 33, 64, most_pages};
        const unsigned pages = sizes[pick(std::size(sizes))];
        void* at =
            mmap(nullptr, pages * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) return expect(false);
        m.base = static_cast<char*>(at);
        m.pages = pages;
        begin(m, 0, pages);
    }

    /// Only what is still there: a hole may be another thread's by now.
    bool all_there(const mapping& m, unsigned first, unsigned n) const {
        for (unsigned p = first; p < first + n; p++) {
            if (m.state[p] == absent) return false;
        }
        return true;
    }

    void unmap(mapping& m, unsigned first, unsigned n) {
        if (all_there(m, first, n)) {
            expect(munmap(m.base + first * page, n * page) == 0);
        } else {
            for (unsigned p = first; p < first + n; p++) {
                if (m.state[p] != absent) expect(munmap(m.base + p * page, page) == 0);
            }
        }
        for (unsigned p = first; p < first + n; p++) m.state[p] = absent;
        for (unsigned p = 0; p < m.pages; p++) {
            if (m.state[p] != absent) return;
        }
        m.pages = 0;
    }

    void protect(mapping& m, unsigned first, unsigned n) {
        if (!all_there(m, first, n)) return;
        const bool write = pick(2);
        expect(mprotect(m.base + first * page, n * page,
                        write ? PROT_READ | PROT_WRITE : PROT_READ) == 0);
        for (unsigned p = first; p < first + n; p++) m.state[p] = write ? writable : readable;
    }

    void discard(mapping& m, unsigned first, unsigned n) {
        if (!all_there(m, first, n)) return;
        expect(madvise(m.base + first * page, n * page, MADV_DONTNEED) == 0);
        for (unsigned p = first; p < first + n; p++) m.value[p] = 0;
    }

    void replace(mapping& m, unsigned first, unsigned n) {
        if (!all_there(m, first, n)) return;
        expect(mmap(m.base + first * page, n * page, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == m.base + first * page);
        begin(m, first, n);
    }

    void remap(mapping& m) {
        // One protection throughout, as Linux wants it.
        for (unsigned p = 0; p < m.pages; p++) {
            if (m.state[p] != writable) return;
        }
        const unsigned pages = 1 + pick(most_pages);
        void* at = mremap(m.base, m.pages * page, pages * page, MREMAP_MAYMOVE);
        // Linux may have made two mappings of it; then it is as it was.
        if (at == MAP_FAILED) return;
        const unsigned before = m.pages;
        m.base = static_cast<char*>(at);
        m.pages = pages;
        if (pages > before) begin(m, before, pages - before);
    }

    void look(mapping& m) {
        for (unsigned p = 0; p < m.pages; p++) {
            if (m.state[p] == absent) continue;
            expect(word_of(m, p) == m.value[p]);
            if (m.state[p] == writable && pick(4) == 0) write(m, p);
        }
    }

    unsigned number_, wrong_ = 0, written_ = 0;
    std::mt19937 random_;
    mapping held_[count];
};

/// Until `done(step)` says so, in each of `threads`; every so often one forks.
template <class Done>
unsigned run(unsigned threads, Done done) {
    std::atomic<unsigned> wrong{0};
    on_threads(threads, [&](unsigned index) {
        mapper mine(index);
        for (unsigned i = 0; !done(i); i++) {
            mine.step();
            if (index % 8 != 0 || i % 100 != 20) continue;
            const pid_t child = fork();
            if (child == 0) _exit(mine.is_sound_in_child() ? 0 : 1);
            int status = -1;
            if (child > 0) waitpid(child, &status, 0);
            wrong += status != 0;
        }
        mine.look_at_all();
        wrong += mine.wrong();
    });
    return wrong;
}

void check_arena() {
    const auto s = memory::process_arena_statistics();
    CHECK(s.allocated + s.free == s.usable);
    CHECK(memory::check_process_arena());
}

}  // namespace

TEST_CASE("many threads map and unmap at random beside a model") {
    CHECK(in_cell([] { return run(12, [](unsigned step) { return step == 24; }); }) == 0);
    check_arena();
}

TEST_CASE("mapping and unmapping by hundreds at random for minutes", "[.][soak]") {
    const char* seconds = std::getenv("XOS_SOAK");
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::seconds(seconds ? std::atoi(seconds) : 8);
    CHECK(in_cell([end] {
              return run(300, [end](unsigned step) {
                  return step % 16 == 0 && std::chrono::steady_clock::now() > end;
              });
          }) == 0);
    check_arena();
}
