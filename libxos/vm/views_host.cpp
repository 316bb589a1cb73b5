#include <linux/mman.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views.hpp"

namespace xos::vm {

using base::outcome;
using base::raw_syscall;
using base::step;

view_table the_views;
frame_pool the_frames;

namespace {

base::futex_lock reserving;
constexpr std::uint64_t first_view = 0x1000'0000'0000;
std::uint64_t next_view = first_view;

}  // namespace

outcome reserve_view(std::uint64_t bytes, gva& begin) {
    base::lock_guard guard(reserving);
    auto& space = cell::the_cell.space();
    const std::uint64_t length =
        (bytes + memory::chunk_size - 1) / memory::chunk_size * memory::chunk_size;
    if (length == 0 || length < bytes) return {step::bad_option, 22};
    const unsigned n = the_views.count.load(std::memory_order_relaxed);
    if (n == view_table::capacity) return {step::reserve_memory, 12};
    // Linux must not hand out the addresses. Whatever already lies there is stepped over.
    long r;
    do {
        if (next_view + length >= memory::user_end) return {step::reserve_memory, 12};
        r = raw_syscall(__NR_mmap, static_cast<long>(next_view), static_cast<long>(length),
                        PROT_NONE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        begin = gva{next_view};
        next_view += length;
        if (base::is_error(r) && r != -17) return {step::reserve_memory, static_cast<int>(-r)};
    } while (base::is_error(r));
    if (auto failed = space.exclude(begin, begin + length); !failed.ok()) return failed;
    const std::uint64_t tables = length / large_page_size;
    auto** list = reinterpret_cast<arch::entry**>(
        cell::the_cell.arena.allocate_kernel(tables * sizeof(arch::entry*)).value);
    if (!list) return {step::page_tables, 12};
    {
        base::lock_guard editing(space.lock());
        if (space.tables().ensure_tables(begin, length) != paging::status::ok) {
            return {step::page_tables, 12};
        }
        for (std::uint64_t i = 0; i < tables; i++) {
            list[i] = space.tables().leaf_slot(begin + i * large_page_size);
        }
    }
    the_views.views[n] = {begin, length, list};
    the_views.count.store(n + 1, std::memory_order_release);
    return base::success;
}

outcome frame_pool::reserve(std::size_t bytes) {
    base::lock_guard guard(reserving);
    if (ready()) return base::success;
    const std::size_t length = (bytes + large_page_size - 1) / large_page_size * large_page_size;
    long r =
        raw_syscall(__NR_mmap, 0, static_cast<long>(length + large_page_size),
                    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base::is_error(r)) return {step::reserve_memory, static_cast<int>(-r)};
    host_ = hva{static_cast<std::uint64_t>(r)}.align_up(large_page_size);
    raw_syscall(__NR_madvise, static_cast<long>(host_.value), static_cast<long>(length),
                MADV_HUGEPAGE);
    auto& space = cell::the_cell.space();
    memory::region made;
    if (auto failed = space.add_frames(host_, length, made); !failed.ok()) return failed;
    physical_ = made.physical;
    length_ = length;
    return base::success;
}

gpa frame_pool::allocate() {
    constexpr std::uint64_t index_mask = 0xffffffff;
    std::uint64_t head = free_.load(std::memory_order_acquire);
    while (head & index_mask) {
        const gpa frame = physical_ + ((head & index_mask) - 1) * page_size;
        const std::uint64_t next = *static_cast<const volatile std::uint64_t*>(data(frame));
        const std::uint64_t changed = ((head >> 32) + 1) << 32 | (next & index_mask);
        if (free_.compare_exchange_weak(head, changed, std::memory_order_acq_rel)) {
            *static_cast<volatile std::uint64_t*>(data(frame)) = 0;
            return frame;
        }
    }
    std::uint64_t fresh = fresh_.load(std::memory_order_relaxed);
    do {
        if (fresh + page_size > length_) return gpa{0};
    } while (!fresh_.compare_exchange_weak(fresh, fresh + page_size, std::memory_order_relaxed));
    return physical_ + fresh;
}

void frame_pool::free(gpa frame) {
    const std::uint64_t index = (frame - physical_) / page_size + 1;
    std::uint64_t head = free_.load(std::memory_order_relaxed), changed;
    do {
        *static_cast<volatile std::uint64_t*>(data(frame)) = head & 0xffffffff;
        changed = ((head >> 32) + 1) << 32 | index;
    } while (!free_.compare_exchange_weak(head, changed, std::memory_order_acq_rel));
}

}  // namespace xos::vm
