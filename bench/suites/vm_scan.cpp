// Which of the pages of 1 GiB were written to: collected and forgotten, as a checkpointer or an
// incremental collector does it. Neither side needs the memory: in the view a few frames are behind
// all pages, and Linux has its zero page behind those that are only read. All of them are mapped as
// small pages, one in a hundred is written to between two scans, which does not count.
#include <sys/mman.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "bench/clock.hpp"
#include "bench/harness.hpp"
#include "bench/suites/vm_pages.hpp"
#include "bench/suites/vm_scan_linux.hpp"

namespace xos::bench {

namespace {

constexpr std::uint64_t bytes = std::uint64_t{1} << 30, pages = bytes / page_size;
constexpr std::uint64_t stride = 100, written = (pages + stride - 1) / stride;

std::uint64_t* bitmap() {
    static std::vector<std::uint64_t> words(pages / 64);
    return words.data();
}

void write_some(std::uint64_t begin) {
    for (std::uint64_t i = 0; i < pages; i += stride) touch(begin + i * page_size, 1);
}

template <class Collect>
std::uint64_t measure(std::uint64_t operations, std::uint64_t begin, Collect&& collect) {
    std::uint64_t spent = 0;
    for (; operations; operations--) {
        write_some(begin);
        const std::uint64_t start = ticks();
        const std::uint64_t found = collect();
        spent += ticks() - start;
        if (found != written) throw std::runtime_error("the scan has not found what was written");
    }
    return spent;
}

std::uint64_t region;
std::unique_ptr<written_pages> watcher;

void make_region() {
    if (watcher) return;
    void* at = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    region = mapped(at);
    madvise(at, bytes, MADV_NOHUGEPAGE);
    for (std::uint64_t i = 0; i < pages; i++)
        (void)*reinterpret_cast<volatile char*>(region + i * page_size);
    watcher = watch_writes(region, bytes);
}

std::uint64_t scan_region(std::uint64_t operations) {
    return measure(operations, region, [] {
        std::fill_n(bitmap(), pages / 64, 0);
        return watcher->collect(bitmap());
    });
}

gva view;

void make_view() {
    if (view.value) return;
    view = vm::reserve(bytes);
    map_shared(view, pages, vm::access::read_write);
    check(vm::scan(view, bytes, vm::usage::dirty, true, bitmap()).result);
}

std::uint64_t scan_view(std::uint64_t operations) {
    return measure(operations, view.value,
                   [] { return vm::scan(view, bytes, vm::usage::dirty, true, bitmap()).found; });
}

const registration scanning({
    .suite = "vm",
    .name = "dirty-scan-1g",
    .note = "collect and clear the dirty bits of 1 GiB of small pages, 1 % written to",
    .linux_way = side{.where = place::outside,
                      .setup =
                          [] {
                              make_region();
                              remark(watcher->name());
                          },
                      .measure = scan_region},
    .xos_way = {.where = place::inside, .setup = make_view, .measure = scan_view},
    .counted_operations = 1,
});

}  // namespace

}  // namespace xos::bench
