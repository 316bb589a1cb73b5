#include "bench/suites/vm_pages.hpp"

#include <cerrno>
#include <stdexcept>
#include <system_error>

#include "bench/suites/trap_fault_handlers.hpp"

namespace xos::bench {

namespace {

gva the_view() {
    static const gva view = [] {
        const gva begin = vm::reserve(2 * view_pages * page_size);
        map_shared(begin, view_pages, vm::access::read_write);
        return begin;
    }();
    return view;
}

}  // namespace

gva mapped_pages() {
    return the_view();
}
gva empty_pages() {
    return the_view() + view_pages * page_size;
}

void check(vm::map_result r) {
    if (r != vm::map_result::ok) throw std::runtime_error(vm::to_string(r));
}

void commit(vm::batch& changes) {
    check(changes.commit());
}

void map_shared(gva begin, std::uint64_t pages, vm::access a) {
    fill(the_frames);
    constexpr std::uint64_t together = 4096;
    vm::batch changes;
    for (std::uint64_t i = 0; i < pages; i++) {
        changes.map(begin + i * page_size, page_size, the_frames.frames[i % frame_ring::size], a);
        if (changes.size() < together) continue;
        commit(changes);
        changes.clear();
    }
    commit(changes);
}

void unmap(gva begin, std::uint64_t pages) {
    vm::batch changes;
    changes.unmap(begin, pages * page_size);
    commit(changes);
}

std::uint64_t mapped(void* result) {
    if (result == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
    return reinterpret_cast<std::uint64_t>(result);
}

std::uint64_t linux_pages(std::uint64_t pages) {
    void* at = mmap(nullptr, pages * page_size, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    const std::uint64_t begin = mapped(at);
    madvise(at, pages * page_size, MADV_NOHUGEPAGE);
    touch(begin, pages);
    return begin;
}

void unmap_linux(std::uint64_t begin, std::uint64_t pages) {
    munmap(reinterpret_cast<void*>(begin), pages * page_size);
}

}  // namespace xos::bench
