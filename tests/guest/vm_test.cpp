// Page tables as an API: batches, large leaves, scans, and what other vCPUs see of them.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <random>
#include <xos/stats.hpp>
#include <xos/trap.hpp>
#include <xos/vm.hpp>

#include "tests/guest/probe.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;
using enum vm::map_result;

namespace {

constexpr std::uint64_t mib = 1 << 20;
constexpr auto none = vm::access::none, readable = vm::access::read,
               read_write = vm::access::read_write, read_execute = vm::access::read_execute,
               read_write_execute = vm::access::read_write_execute;

/// Contiguous frames that begin at a multiple of 2 MiB. Each holds its number, and a RET.
struct frames {
    gpa first;
    explicit frames(unsigned count) {
        gpa next = vm::allocate_frame();
        while (!next.is_aligned(large_page_size)) next = vm::allocate_frame();
        first = next;
        for (unsigned i = 0; i < count; i++) {
            if (next != first + i * page_size) std::abort();  // a fresh arena hands out in order
            auto* data = static_cast<std::uint8_t*>(vm::frame_data(next));
            data[0] = 0xc3;
            std::memcpy(data + 8, &i, sizeof i);
            next = vm::allocate_frame();
        }
    }
    gpa at(unsigned i) const { return first + i * page_size; }
};

unsigned number_at(gva page) {
    return *reinterpret_cast<volatile unsigned*>(page.value + 8);
}

struct model_page {
    bool mapped = false;
    unsigned frame = 0;
    vm::access allowed = none;
    friend bool operator==(const model_page&, const model_page&) = default;
};

/// Random batches against a model of what each page should be.
class machine {
  public:
    static constexpr unsigned pages = 2048, frame_count = 1024, per_large = 512;

    explicit machine(unsigned seed)
        : random_(seed),
          view_(vm::reserve(pages * page_size)),
          frames_(frame_count),
          model_(pages) {}

    /// The first thing that differs from the model, or nothing.
    std::string run(unsigned rounds) {
        for (unsigned i = 0; i < rounds; i++) {
            vm::batch b;
            const unsigned edits = pick(1, 6);
            for (unsigned n = 0; n < edits; n++) add(b);
            const auto result = b.commit();
            if (result != ok) return std::string("commit: ") + vm::to_string(result);
            for (unsigned n = 0; n < 24; n++) {
                if (auto wrong = check(pick(0, pages - 1)); !wrong.empty())
                    return "round " + std::to_string(i) + ": " + wrong;
            }
        }
        for (unsigned p = 0; p < pages; p++) {
            if (auto wrong = check(p); !wrong.empty()) return wrong;
        }
        return "";
    }

  private:
    unsigned pick(unsigned low, unsigned high) {
        return std::uniform_int_distribution<unsigned>(low, high)(random_);
    }
    vm::access any_access() {
        constexpr vm::access all[] = {none, readable, read_write, read_execute, read_write_execute};
        return all[pick(0, 4)];
    }
    gva page(unsigned p) const { return view_ + p * page_size; }

    /// Often a whole large page, or nearly one.
    std::pair<unsigned, unsigned> any_range() {
        if (pick(0, 3) == 0) {
            const unsigned n = pick(1, 2);
            return {pick(0, pages / per_large - n) * per_large, n * per_large};
        }
        const unsigned first = pick(0, pages - 1), most = pages - first;
        return {first, pick(1, std::min(most, pick(0, 1) ? 8u : 700u))};
    }

    void add(vm::batch& b) {
        const auto [first, count] = any_range();
        const std::size_t bytes = count * page_size;
        switch (pick(0, 6)) {
            case 0:
            case 1: {
                const bool aligned = first % per_large == 0 && count % per_large == 0;
                const unsigned frame = aligned && count <= frame_count
                                           ? pick(0, (frame_count - count) / per_large) * per_large
                                           : pick(0, frame_count - std::min(count, frame_count));
                const unsigned n = std::min(count, frame_count - frame);
                const auto a = any_access();
                b.map(page(first), n * page_size, frames_.at(frame), a,
                      pick(0, 1) ? vm::leaf::page_2m : vm::leaf::page_4k);
                for (unsigned i = 0; i < n; i++) model_[first + i] = {true, frame + i, a};
                return;
            }
            case 2:
                b.unmap(page(first), bytes);
                for (unsigned i = 0; i < count; i++) model_[first + i] = {};
                return;
            case 3: {
                const auto a = any_access();
                b.protect(page(first), bytes, a);
                for (unsigned i = 0; i < count; i++) {
                    if (model_[first + i].mapped) model_[first + i].allowed = a;
                }
                return;
            }
            case 4: {
                const unsigned to = pick(0, pages - count);
                if (to < first + count && first < to + count) return;
                b.move(page(first), bytes, page(to));
                for (unsigned i = 0; i < count; i++) {
                    model_[to + i] = model_[first + i];
                    model_[first + i] = {};
                }
                return;
            }
            case 5:
                b.split(page(first), bytes);
                return;
            case 6:
                b.merge(page(first), bytes);
                return;
        }
    }

    std::string check(unsigned p) {
        const model_page& expected = model_[p];
        const auto found = vm::query(page(p) + 123);
        model_page seen{found.mapped, 0, found.allowed};
        if (found.mapped) {
            const std::uint64_t inside = found.size == vm::leaf::page_2m ? p % per_large : 0;
            seen.frame = static_cast<unsigned>((found.frame - frames_.first) / page_size + inside);
        }
        const auto bits = static_cast<unsigned>(expected.allowed);
        const bool r = can_read(page(p)), w = can_write(page(p) + 16), x = can_execute(page(p));
        const bool content = !r || number_at(page(p)) == expected.frame;
        if (seen == expected && r == (bits & 1) && w == !!(bits & 2) && x == !!(bits & 4) &&
            content)
            return "";
        return "page " + std::to_string(p) + " mapped " + std::to_string(found.mapped) + " frame " +
               std::to_string(seen.frame) + " (expected " + std::to_string(expected.mapped) + " " +
               std::to_string(expected.frame) + ") access " +
               std::to_string(static_cast<unsigned>(found.allowed)) + " (expected " +
               std::to_string(bits) + ") rwx " + std::to_string(r) + std::to_string(w) +
               std::to_string(x);
    }

    std::mt19937 random_;
    gva view_;
    frames frames_;
    std::vector<model_page> model_;
};

}  // namespace

TEST_CASE("random batches leave the pages that the model predicts") {
    ensure_cell();
    const auto probing = probe_accesses();
    machine m(20261121);
    CHECK(in_cell([&] { return m.run(250); }) == "");
}

TEST_CASE("a batch that holds one bad edit changes nothing") {
    ensure_cell();
    const gva view = vm::reserve(4 * mib);
    const gpa frame = vm::allocate_frame();
    using seen = std::tuple<vm::map_result, std::size_t, bool>;
    const auto tried = [&](auto add) {
        return in_cell([&] {
            vm::batch b;
            b.map(view, page_size, frame, read_write);
            add(b);
            const auto r = b.commit();
            return seen{r, b.failed(), vm::query(view).mapped};
        });
    };
    const gva outside{0x1000};
    const std::uint64_t far = std::uint64_t{1} << 52;
    CHECK(tried([&](vm::batch& b) { b.unmap(outside, 4096); }) == seen{not_reserved, 1, false});
    CHECK(tried([&](vm::batch& b) { b.unmap(view + 1, 4096); }) == seen{misaligned, 1, false});
    CHECK(tried([&](vm::batch& b) { b.unmap(view, 4095); }) == seen{misaligned, 1, false});
    CHECK(tried([&](vm::batch& b) { b.unmap(view, 1ul << 40); }) == seen{not_reserved, 1, false});
    CHECK(tried([&](vm::batch& b) { b.unmap(view + 4096, -4096ul); }) ==
          seen{not_reserved, 1, false});
    CHECK(tried([&](vm::batch& b) { b.map(view, 4096, frame + 1, readable); }) ==
          seen{misaligned, 1, false});
    CHECK(tried([&](vm::batch& b) { b.map(view, 4096, gpa{far}, readable); }) ==
          seen{bad_frame, 1, false});
    CHECK(tried([&](vm::batch& b) { b.protect(view, 4096, static_cast<vm::access>(2)); }) ==
          seen{bad_option, 1, false});
    CHECK(tried([&](vm::batch& b) { b.move(view, 8192, view + 4096); }) == seen{overlap, 1, false});
    CHECK(tried([&](vm::batch& b) { b.move(view, 8192, outside); }) ==
          seen{not_reserved, 1, false});
    CHECK(tried([&](vm::batch& b) { b.unmap(view, 0); }) == seen{ok, 2, true});
}

TEST_CASE("frames that run out in the middle of a batch change nothing") {
    ensure_cell();
    const gva view = vm::reserve(256 * mib);
    const auto before = in_cell([&] {
        std::size_t n = 0;
        std::vector<gpa> all;
        for (gpa f = vm::allocate_frame(); f != gpa{0}; f = vm::allocate_frame()) all.push_back(f);
        for (gpa f : all) n += vm::free_frame(f);
        return n;
    });
    CHECK(in_cell([&] {
              vm::batch b;
              b.map_new(view, 16 * page_size, read_write);
              b.map_new(view + 64 * page_size, before * page_size, read_write);
              return b.commit();
          }) == no_frames);
    const auto after = in_cell([&] {
        std::vector<std::uint64_t> wrong;
        vm::batch b;
        b.map_new(view, before * page_size, read_write);
        const auto r = b.commit();
        for (std::size_t i = 0; i < before; i++) {
            auto* words = reinterpret_cast<std::uint64_t*>(view.value + i * page_size);
            for (unsigned w = 0; w < 512; w++) {
                if (words[w]) wrong.push_back(i);
                words[w] = ~i;
            }
        }
        vm::batch back;
        back.unmap_and_free(view, before * page_size);
        const auto freed = back.commit();
        std::size_t again = 0;
        while (vm::allocate_frame() != gpa{0}) again++;
        return std::tuple(r, wrong.size(), freed, again);
    });
    CHECK(after == std::tuple(ok, std::size_t{0}, ok, before));
}

TEST_CASE("what is no frame of the arena is not taken back") {
    ensure_cell();
    (void)vm::reserve(4096);
    const gpa frame = vm::allocate_frame();
    CHECK_FALSE(vm::free_frame(gpa{0}));
    CHECK_FALSE(vm::free_frame(frame + 1));
    CHECK_FALSE(vm::free_frame(frame + (1ul << 40)));
    CHECK(vm::free_frame(frame));
}

TEST_CASE("a protection taken away holds for other threads when the call returns") {
    ensure_cell();
    const auto probing = probe_accesses();
    const gva view = vm::reserve(4 * mib);
    const gpa frame = vm::allocate_frame();
    std::atomic<unsigned> epoch{0};
    std::atomic<bool> end{false};
    std::atomic<unsigned> reads{0}, late{0}, refused{0};
    in_cell([&] {
        must(vm::map(view, frame, read_write));
        return 0;
    });
    std::thread reader([&] {
        scoped_entry inside;
        while (!end) {
            // Odd: taken away before we looked, and not given back since.
            const unsigned before = epoch.load();
            const bool could = can_write(view);
            const unsigned after = epoch.load();
            if (could && before % 2 == 1 && before == after) late++;
            (could ? reads : refused)++;
        }
    });
    const unsigned rounds = 60;
    in_cell([&] {
        for (unsigned i = 0; i < rounds; i++) {
            const unsigned seen = reads, shut = refused;
            while (reads == seen) std::this_thread::yield();
            if (i % 2) {
                must(vm::protect(view, readable));
            } else {
                vm::batch b;
                b.protect(view, page_size, none);
                must(b.commit());
            }
            epoch++;
            while (refused == shut) std::this_thread::yield();
            epoch++;
            must(vm::protect(view, read_write));
        }
        end = true;
        return 0;
    });
    reader.join();
    CHECK(late == 0);
    CHECK(refused >= rounds);
}

TEST_CASE("a flush reaches a thread that waits in Linux") {
    ensure_cell();
    const auto probing = probe_accesses();
    const gva view = vm::reserve(4 * mib);
    const gpa frame = vm::allocate_frame();
    int to[2], from[2];
    REQUIRE(pipe(to) == 0);
    REQUIRE(pipe(from) == 0);
    std::vector<bool> seen;
    in_cell([&] {
        must(vm::map(view, frame, read_write));
        return 0;
    });
    std::thread waiting([&] {
        scoped_entry inside;
        char c = 0;
        for (unsigned i = 0; i < 20; i++) {
            seen.push_back(can_write(view));
            (void)!write(from[1], &c, 1);
            (void)!read(to[0], &c, 1);
        }
    });
    in_cell([&] {
        char c = 0;
        for (unsigned i = 0; i < 20; i++) {
            (void)!::read(from[0], &c, 1);
            must(vm::protect(view, i % 2 ? read_write : readable));
            (void)!write(to[1], &c, 1);
        }
        return 0;
    });
    waiting.join();
    std::vector<bool> expected;
    for (unsigned i = 0; i < 20; i++) expected.push_back(i % 2 == 0);
    CHECK(seen == expected);
    for (int fd : {to[0], to[1], from[0], from[1]}) close(fd);
}

TEST_CASE("a scan finds the pages written since the last one") {
    ensure_cell();
    const gva view = vm::reserve(64 * mib);
    constexpr unsigned pages = 3000;
    const auto wrong = in_cell([&] {
        std::vector<std::string> wrong;
        vm::batch b;
        b.map_new(view, pages * page_size, read_write);
        must(b.commit());
        std::vector<std::uint64_t> bits(pages / 64 + 1);
        const auto scan = [&](vm::usage what, bool clear) {
            return vm::scan(view, pages * page_size, what, clear, bits.data());
        };
        const auto expect = [&](const char* when, vm::scan_result seen,
                                const std::vector<bool>& marks) {
            std::size_t n = 0;
            for (unsigned p = 0; p < pages; p++) {
                const bool bit = bits[p / 64] >> (p % 64) & 1;
                if (bit != marks[p]) wrong.push_back(std::string(when) + std::to_string(p));
                n += marks[p];
            }
            if (seen.result != ok || seen.found != n)
                wrong.push_back(std::string(when) + "count " + std::to_string(seen.found));
        };
        expect("new ", scan(vm::usage::dirty, true), std::vector<bool>(pages, true));
        expect("none ", scan(vm::usage::dirty, true), std::vector<bool>(pages, false));
        std::mt19937 random(7);
        for (unsigned round = 0; round < 4; round++) {
            std::vector<bool> marks(pages, false);
            for (unsigned i = 0; i < 200; i++) {
                const unsigned p = random() % pages;
                marks[p] = true;
                reinterpret_cast<volatile char*>(view.value)[p * page_size + random() % 4096] = 1;
            }
            for (unsigned i = 0; i < 200; i++)
                (void)reinterpret_cast<volatile char*>(view.value)[random() % pages * page_size];
            expect("kept ", scan(vm::usage::dirty, false), marks);
            expect("cleared ", scan(vm::usage::dirty, true), marks);
        }
        if (scan(vm::usage::accessed, true).result != ok) wrong.push_back("refused");
        std::vector<bool> touched(pages, false);
        for (unsigned p = 5; p < pages; p += 77) {
            (void)reinterpret_cast<volatile char*>(view.value)[p * page_size];
            touched[p] = true;
        }
        expect("accessed ", scan(vm::usage::accessed, true), touched);
        const auto refused = [&](gva begin) {
            return vm::scan(begin, page_size, vm::usage::dirty, true, bits.data());
        };
        if (const auto r = refused(view + 1); r.result != misaligned || r.found)
            wrong.push_back("misaligned");
        if (const auto r = refused(gva{0x1000}); r.result != not_reserved || r.found)
            wrong.push_back("nowhere");
        return wrong;
    });
    CHECK(wrong == std::vector<std::string>{});
}

TEST_CASE("batches of many edits make no exit") {
    ensure_cell();
    const gva view = vm::reserve(64 * mib);
    const auto exits = in_cell([&] {
        vm::batch b;
        b.map_new(view, 512 * page_size, read_write);
        must(b.commit());
        b.clear();
        for (unsigned i = 0; i < 512; i++) b.protect(view + i * page_size, page_size, readable);
        must(b.commit());
        const auto before = thread_exits();
        must(b.commit());
        return thread_exits() - before;
    });
    CHECK(exits == 0);
}

TEST_CASE("a fork's child has its own copy of views") {
    ensure_cell();
    const gva view = vm::reserve(4 * mib);
    const auto seen = in_cell([&] {
        vm::batch b;
        b.map_new(view, 8 * page_size, read_write);
        must(b.commit());
        auto* words = reinterpret_cast<volatile long*>(view.value);
        words[0] = 41;
        const pid_t child = fork();
        if (child == 0) {
            words[0] = words[0] + 1;
            must(vm::protect(view + page_size, readable));
            _exit(words[0] == 42 && !vm::query(view + 9 * page_size).mapped ? 7 : 1);
        }
        int status = 0;
        waitpid(child, &status, 0);
        return std::tuple(WEXITSTATUS(status), long{words[0]}, vm::query(view + page_size).allowed);
    });
    CHECK(seen == std::tuple(7, 41l, read_write));
}
