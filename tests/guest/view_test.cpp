// Views that come and go.
#include <setjmp.h>
#include <signal.h>

#include <optional>
#include <set>
#include <xos/memory.hpp>
#include <xos/pager.hpp>
#include <xos/space.hpp>
#include <xos/view.hpp>

#include "tests/guest/handlers.hpp"
#include "tests/guest/probe.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t mib = 1 << 20;
constexpr auto read_write = vm::access::read_write;

void map_pages(const view& v, unsigned pages) {
    vm::batch b;
    b.map_new(v.begin(), pages * page_size, read_write);
    must(b.commit());
}

std::size_t free_frames() {
    std::vector<gpa> all;
    for (gpa f = vm::allocate_frame(); f != gpa{0}; f = vm::allocate_frame()) all.push_back(f);
    for (gpa f : all) vm::free_frame(f);
    return all.size();
}

sigjmp_buf back;
std::uint64_t refused_address;

}  // namespace

TEST_CASE("a view is given back ten thousand times without running out") {
    ensure_cell();
    const auto different = in_cell([] {
        std::set<std::uint64_t> begins;
        for (unsigned i = 0; i < 200; i++) begins.insert(view(mib).begin().value);
        // With fewer tables to look through.
        for (unsigned i = 0; i < 9800; i++)
            begins.insert(view(mib, vm::leaf::page_2m).begin().value);
        return begins.size();
    });
    CHECK(different == 2);
    const gva begin = view(mib).begin();
    for (unsigned i = 0; i < 50; i++) CHECK(view(mib).begin() == begin);
}

TEST_CASE("a view that was given back faults as memory does that is not mapped") {
    ensure_cell();
    handle(SIGSEGV, [](int, siginfo_t* info, void*) {
        refused_address = reinterpret_cast<std::uint64_t>(info->si_addr);
        siglongjmp(back, 1);
    });
    for (const bool gone_inside : {true, false}) {
        view v(mib);
        auto* const data = static_cast<volatile char*>(v.data());
        in_cell([&] {
            map_pages(v, 4);
            data[2 * page_size + 5] = 1;
            if (gone_inside) v.reset();
            return 0;
        });
        v.reset();
        CHECK(v.data() == nullptr);
        refused_address = 0;
        const bool refused = in_cell([&] {
            if (sigsetjmp(back, 1)) return true;
            data[2 * page_size + 5] = 2;
            return false;
        });
        CHECK(refused);
        CHECK(refused_address == reinterpret_cast<std::uint64_t>(data + 2 * page_size + 5));
        CHECK(in_cell([&] {
                  return vm::map(gva{reinterpret_cast<std::uint64_t>(data)}, vm::allocate_frame(),
                                 read_write);
              }) == vm::map_result::not_reserved);
    }
    const ended e = in_child([] {
        scoped_entry guard;
        signal(SIGSEGV, SIG_DFL);
        view v(mib);
        map_pages(v, 1);
        auto* const data = static_cast<volatile char*>(v.data());
        v.reset();
        data[0] = 1;
        return 1;
    });
    CHECK(e == ended{"signal 11", ""});
}

TEST_CASE("addresses come back empty and only to views that they are enough for") {
    ensure_cell();
    const auto probing = probe_accesses();
    CHECK(in_cell([] {
              lines wrong;
              view small(64 * mib), large(256 * mib);
              const gva small_begin = small.begin(), large_begin = large.begin();
              map_pages(small, 1000);
              map_pages(large, 1000);
              small.reset();
              large.reset();
              const view larger(300 * mib), other_leaves(64 * mib, vm::leaf::page_2m);
              if (larger.begin() == large_begin) wrong.push_back("larger");
              if (other_leaves.begin() == small_begin) wrong.push_back("other leaves");
              const view again(64 * mib), second(100 * mib), third(64 * mib);
              if (again.begin() != small_begin) wrong.push_back("small");
              if (second.begin() != large_begin) wrong.push_back("large");
              if (third.begin() == small_begin || third.begin() == large_begin)
                  wrong.push_back("twice");
              for (gva begin : {small_begin, large_begin}) {
                  for (unsigned p = 0; p < 1000; p++) {
                      const gva page = begin + p * page_size;
                      if (vm::query(page).mapped || can_read(page)) wrong.push_back("mapped");
                  }
              }
              map_pages(second, 1000);
              if (!can_write(second.begin() + 999 * page_size)) wrong.push_back("unusable");
              return wrong;
          }) == lines{});
}

TEST_CASE("the frames of a view that goes are kept unless they are to be freed") {
    // Few of them, as they are counted one by one.
    start({.mode = wanted_mode(), .frame_arena = 2 * mib, .transport = wanted_transport()});
    CHECK(in_cell([] {
              { const view makes_the_arena(mib); }
              const std::size_t before = free_frames();
              std::vector<std::size_t> used;
              {
                  const view v(mib, vm::leaf::page_4k, view::frames::freed);
                  map_pages(v, 20);
                  must(vm::protect(v.begin(), vm::access::none));
                  used.push_back(before - free_frames());
              }
              used.push_back(before - free_frames());
              {
                  const view v(mib);
                  map_pages(v, 20);
              }
              used.push_back(before - free_frames());
              return used;
          }) == std::vector<std::size_t>{20, 0, 20});
    CHECK(errno_of([] { const view v(mib, vm::leaf::page_2m, view::frames::freed); }) == EINVAL);
}

TEST_CASE("a view moves with its addresses") {
    ensure_cell();
    std::optional<view> first(mib);
    const gva begin = first->begin();
    view second = std::move(*first);
    first.reset();
    CHECK(second.begin() == begin);
    CHECK(second.bytes() == mib);
    const view other(mib);
    CHECK(other.begin() != begin);
    second = view();
    CHECK(second.data() == nullptr);
    CHECK(view(mib).begin() == begin);
}

TEST_CASE("what another thread remembers of a view is gone when the view is") {
    ensure_cell();
    const auto probing = probe_accesses();
    std::optional<view> v(mib);
    const gva page = v->begin();
    in_cell([&] {
        map_pages(*v, 2);
        return 0;
    });
    std::atomic<unsigned> reads{0}, refused{0};
    std::atomic<bool> end{false};
    std::thread reader([&] {
        const scoped_entry guard;
        while (!end) (can_read(page) ? reads : refused)++;
    });
    bool faults = false;
    in_cell([&] {
        eventually([&] { return reads > 0; });
        v.reset();
        const unsigned before = reads;
        const unsigned seen = refused;
        faults = eventually([&] { return refused > seen + 1; }) && reads <= before + 1;
        end = true;
        return 0;
    });
    reader.join();
    CHECK(faults);
}

TEST_CASE("a space that has separated a view keeps it and its addresses wait") {
    ensure_cell();
    CHECK(in_cell([] {
              lines wrong;
              std::optional<space> snapshot(std::in_place);
              view v(mib);
              const gva begin = v.begin();
              map_pages(v, 3);
              auto& word = *static_cast<volatile long*>(v.data());
              word = 42;
              snapshot->separate(begin, space::frames::shared);
              {
                  const space::inside_of look(*snapshot);
                  v.reset();
                  if (word != 42) wrong.push_back("lost");
              }
              if (vm::query(begin).mapped) wrong.push_back("still mapped");
              if (view(mib).begin() == begin) wrong.push_back("too early");
              snapshot.reset();
              std::set<std::uint64_t> begins;
              const view one(mib), two(mib);
              if (one.begin() != begin && two.begin() != begin) wrong.push_back("never");
              if (vm::query(begin).mapped) wrong.push_back("mapped again");
              return wrong;
          }) == lines{});
}

TEST_CASE("a view stays where its thread cannot enter to give it back") {
    ensure_cell();
    const auto probing = probe_accesses();
    std::optional<view> v(mib);
    const gva begin = v->begin();
    CHECK(in_cell([&] {
        map_pages(*v, 1);
        host_call([&] { v.reset(); });
        return can_write(begin);
    }));
    CHECK(view(mib).begin() != begin);
}

TEST_CASE("paged views come and go") {
    ensure_cell();
    memory::arena frames({.bytes = 64 * mib});
    const auto use = [](paged_view& v) {
        auto* data = reinterpret_cast<volatile char*>(v.begin().value);
        const bool empty = data[5 * page_size] == 0;
        data[5 * page_size] = 1;
        return empty;
    };
    CHECK(in_cell([&] {
              unsigned good = 0;
              for (unsigned i = 0; i < 300; i++) {
                  paged_view v({.bytes = mib}, frames);
                  good += use(v);
              }
              return good;
          }) == 300);
    {
        paged_view v({.bytes = mib}, frames);
        CHECK(in_cell([&] { return use(v); }));
        CHECK(errno_of([&] { v.evict(v.begin(), mib); }) == EPERM);
    }
    CHECK(frames.statistics().allocated == 0);
}
