// More than one address space.
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <random>
#include <xos/memory.hpp>
#include <xos/space.hpp>
#include <xos/trap.hpp>

#include "tests/guest/probe.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr auto read_write = vm::access::read_write;

volatile long& word(gva view, unsigned page) {
    return reinterpret_cast<volatile long*>(view.value)[page * 512 + 7];
}

verdict copy_when_written(trap_frame& f, void*) {
    const auto fault = page_fault_of(f);
    if (fault.kind() != fault_kind::write_protected) return verdict::pass;
    const auto done = copy_on_write(fault.address.align_down(page_size));
    return done == vm::map_result::ok ? verdict::resume : verdict::pass;
}

/// A view whose pages hold their numbers.
gva filled_view(unsigned pages) {
    const gva view = vm::reserve(pages * page_size);
    in_cell([&] {
        vm::batch b;
        b.map_new(view, pages * page_size, read_write);
        must(b.commit());
        for (unsigned p = 0; p < pages; p++) word(view, p) = p;
        return 0;
    });
    return view;
}

std::size_t free_frames() {
    std::vector<gpa> all;
    for (gpa f = vm::allocate_frame(); f != gpa{0}; f = vm::allocate_frame()) all.push_back(f);
    for (gpa f : all) vm::free_frame(f);
    return all.size();
}

}  // namespace

TEST_CASE("a snapshot keeps what the main space changes") {
    ensure_cell();
    constexpr unsigned pages = 600;
    const gva view = filled_view(pages);
    const auto handling = on_fault(view, pages * page_size, copy_when_written);
    const auto wrong = in_cell([&] {
        lines wrong;
        const std::size_t before = free_frames();
        {
            space snapshot;
            snapshot.separate(view, space::frames::copied_on_write);
            for (unsigned p = 0; p < pages; p += 3) word(view, p) = 1000 + p;
            {
                space::inside_of look(snapshot);
                for (unsigned p = 0; p < pages; p++) {
                    if (word(view, p) != static_cast<long>(p))
                        wrong.push_back("snapshot " + std::to_string(p));
                }
                for (unsigned p = 1; p < pages; p += 3) word(view, p) = 2000 + p;
                // Memory that the guest has never seen, too.
                std::vector<int> fresh(3 << 20, 5);
                if (fresh[2 << 20] != 5) wrong.push_back("fresh");
            }
            for (unsigned p = 0; p < pages; p++) {
                const long expected = p % 3 == 0 ? 1000 + p : p;
                if (word(view, p) != expected) wrong.push_back("main " + std::to_string(p));
            }
            if (free_frames() >= before) wrong.push_back("no copies");
        }
        if (free_frames() != before) wrong.push_back("frames lost");
        return wrong;
    });
    CHECK(wrong == lines{});
}

TEST_CASE("spaces that share frames see each other's writes but not each other's mappings") {
    ensure_cell();
    const gva view = filled_view(8);
    const auto seen = in_cell([&] {
        space other;
        other.separate(view, space::frames::shared);
        vm::batch b;
        b.unmap(view + 3 * page_size, page_size);
        must(b.commit());
        word(view, 1) = 77;
        lines seen{std::to_string(vm::query(view + 3 * page_size).mapped)};
        {
            space::inside_of look(other);
            seen.push_back(std::to_string(vm::query(view + 3 * page_size).mapped));
            seen.push_back(std::to_string(word(view, 3)));
            seen.push_back(std::to_string(word(view, 1)));
            word(view, 2) = 78;
            must(vm::protect(view + 4 * page_size, vm::access::read));
        }
        seen.push_back(std::to_string(word(view, 2)));
        seen.push_back(
            std::to_string(static_cast<unsigned>(vm::query(view + 4 * page_size).allowed)));
        return seen;
    });
    CHECK(seen == lines{"0", "1", "3", "77", "78", "3"});
}

TEST_CASE("many snapshots follow a model") {
    ensure_cell();
    constexpr unsigned pages = 96, most = 5;
    const gva view = filled_view(pages), other = filled_view(4);
    const auto handling = on_fault(view, pages * page_size, copy_when_written);
    const auto wrong = in_cell([&] {
        lines wrong;
        const std::size_t before = free_frames();
        std::mt19937 random(11);
        struct copy {
            std::unique_ptr<space> where;
            std::vector<long> words;
        };
        std::vector<copy> copies;
        std::vector<long> main(pages);
        for (unsigned p = 0; p < pages; p++) main[p] = p;
        for (unsigned round = 0; round < 120; round++) {
            const unsigned choice = random() % 4;
            if (choice == 0 && copies.size() < most) {
                copies.push_back({std::make_unique<space>(), main});
                copies.back().where->separate(view, space::frames::copied_on_write);
            } else if (choice == 1 && !copies.empty()) {
                copies.erase(copies.begin() + random() % copies.size());
            } else {
                const unsigned n = random() % (copies.size() + 1);
                std::optional<space::inside_of> inside;
                if (n) inside.emplace(*copies[n - 1].where);
                auto& words = n ? copies[n - 1].words : main;
                for (unsigned i = 0; i < 10; i++) {
                    const unsigned p = random() % pages;
                    words[p] = static_cast<long>(random());
                    word(view, p) = words[p];
                }
                word(other, 2) = round;
            }
            for (unsigned n = 0; n <= copies.size(); n++) {
                std::optional<space::inside_of> inside;
                if (n) inside.emplace(*copies[n - 1].where);
                const auto& words = n ? copies[n - 1].words : main;
                for (unsigned p = 0; p < pages; p++) {
                    if (word(view, p) != words[p])
                        wrong.push_back(std::to_string(round) + ":" + std::to_string(n) + ":" +
                                        std::to_string(p));
                }
            }
        }
        copies.clear();
        // What nobody maps any more is back; the main space maps as many frames as at first.
        if (free_frames() != before) wrong.push_back("frames lost");
        return wrong;
    });
    CHECK(wrong == lines{});
}

TEST_CASE("threads run in different spaces at the same time") {
    ensure_cell();
    constexpr unsigned pages = 32;
    const gva view = filled_view(pages);
    const auto handling = on_fault(view, pages * page_size, copy_when_written);
    std::atomic<unsigned> wrong{0};
    in_cell([&] {
        space snapshots[3];
        for (space& s : snapshots) s.separate(view, space::frames::copied_on_write);
        std::vector<std::thread> threads;
        for (long t = 0; t < 4; t++) {
            threads.emplace_back([&, t] {
                std::optional<space::inside_of> inside;
                if (t) inside.emplace(snapshots[t - 1]);
                for (long round = 0; round < 200; round++) {
                    for (unsigned p = 0; p < pages; p += 5) word(view, p) = t * 1000 + round;
                    for (unsigned p = 0; p < pages; p++) {
                        const long expected = p % 5 == 0 ? t * 1000 + round : p;
                        if (word(view, p) != expected) wrong++;
                    }
                }
            });
        }
        for (auto& t : threads) t.join();
        return 0;
    });
    CHECK(wrong == 0);
}

TEST_CASE("leaving or forking in a space ends or keeps it as documented") {
    ensure_cell();
    const gva view = filled_view(4);
    const auto handling = on_fault(view, 4 * page_size, copy_when_written);
    std::optional<space> snapshot;
    in_cell([&] {
        snapshot.emplace();
        snapshot->separate(view, space::frames::copied_on_write);
        word(view, 0) = 55;
        return 0;
    });
    const auto child_saw = in_cell([&] {
        space::inside_of look(*snapshot);
        const pid_t child = fork();
        if (child == 0) _exit(word(view, 0) == 0 ? 3 : 1);
        int status = 0;
        waitpid(child, &status, 0);
        return WEXITSTATUS(status);
    });
    CHECK(child_saw == 3);
    enter();
    auto* look = new space::inside_of(*snapshot);
    leave();
    CHECK(in_cell([&] { return long{word(view, 0)}; }) == 55);
    operator delete(look);
    in_cell([&] {
        snapshot.reset();
        return 0;
    });
}

TEST_CASE("spaces refuse what they cannot do") {
    ensure_cell();
    CHECK(errno_of([] { space outside; }) == EPERM);
    const gva view = filled_view(4);
    memory::arena a({.bytes = 64 << 20});
    void* p = a.allocate(4096);
    const auto seen = in_cell([&] {
        std::vector<int> errors;
        space s;
        const auto separate = [&](gva at) {
            errors.push_back(errno_of([&] { s.separate(at, space::frames::shared); }));
        };
        separate(gva{0x1000});
        separate(gva{reinterpret_cast<std::uint64_t>(p)});
        separate(view);
        separate(view + page_size);
        std::vector<std::unique_ptr<space>> many;
        int full = 0;
        while (!full) full = errno_of([&] { many.push_back(std::make_unique<space>()); });
        errors.push_back(full);
        errors.push_back(static_cast<int>(many.size()));
        errors.push_back(static_cast<int>(copy_on_write(view)));
        errors.push_back(static_cast<int>(copy_on_write(gva{0x1000})));
        return errors;
    });
    CHECK(seen == std::vector<int>{EINVAL, EINVAL, 0, EBUSY, ENOSPC, 14, 0, -1});
}
