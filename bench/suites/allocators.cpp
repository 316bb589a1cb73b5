#include "bench/suites/allocators.hpp"

#include <malloc.h>
#include <sys/mman.h>

#include <climits>
#include <xos/jemalloc.hpp>

namespace xos::bench {

namespace {

constexpr std::size_t pool_bytes = std::size_t{512} << 20;
/// Populating counts for nothing, but takes its time.
constexpr std::size_t populated_bytes = pool_bytes / 2;

}  // namespace

memory::arena* extents::pool = nullptr;

void* mappings::allocate(std::size_t n) {
    void* p = mmap(nullptr, n, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    madvise(p, n, MADV_HUGEPAGE);
    return p;
}
void mappings::free(void* p, std::size_t n) {
    munmap(p, n);
}

void keep_all_memory() {
    mallopt(M_MMAP_MAX, 0);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_TOP_PAD, 256 << 20);
}

void make_pool() {
    extents::pool = new memory::arena({.bytes = pool_bytes});
}
void make_populated_pool() {
    extents::pool = new memory::arena({.bytes = populated_bytes, .populate = true});
}

void put_jemalloc_on_arena() {
    make_pool();
    memory::use_for_malloc(*extents::pool);
}
void put_jemalloc_on_populated_arena() {
    make_populated_pool();
    memory::use_for_malloc(*extents::pool);
}

}  // namespace xos::bench
