#include <linux/mman.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/memory/system_arena.hpp"

namespace xos::memory {

using base::raw_syscall;

base::outcome system_arena::reserve(std::size_t bytes, std::size_t kernel_bytes) {
    constexpr std::size_t unit = 2 * large_page_size;
    const std::size_t size = (bytes + unit - 1) / unit * unit;
    const std::size_t reserved = size + large_page_size;
    long r = raw_syscall(__NR_mmap, 0, static_cast<long>(reserved), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base::is_error(r)) return {base::step::reserve_memory, static_cast<int>(-r)};
    size_ = size;
    const hva start{static_cast<std::uint64_t>(r)};
    begin_ = start.align_up(large_page_size);
    if (begin_ != start) raw_syscall(__NR_munmap, r, static_cast<long>(begin_ - start));
    const hva tail = begin_ + size_;
    if (start + reserved != tail) {
        raw_syscall(__NR_munmap, static_cast<long>(tail.value),
                    static_cast<long>(start + reserved - tail));
    }
    // A large page for a few vCPU areas would waste resident memory.
    raw_syscall(__NR_madvise, static_cast<long>(begin_.value), static_cast<long>(size_),
                MADV_NOHUGEPAGE);
    user_begin_ = begin_ + (kernel_bytes + large_page_size - 1) / large_page_size * large_page_size;
    // Page tables are no part of a core file. Trap stacks are: handlers of the application run
    // there.
    raw_syscall(__NR_madvise, static_cast<long>(begin_.value),
                static_cast<long>(user_begin_ - begin_), MADV_DONTDUMP);
    kernel_next_ = begin_.value;
    user_next_ = user_begin_.value;
    return base::success;
}

void system_arena::release() {
    if (size_) raw_syscall(__NR_munmap, static_cast<long>(begin_.value), static_cast<long>(size_));
    size_ = 0;
}

hva system_arena::take(std::atomic<std::uint64_t>& next, hva limit, std::size_t bytes) {
    bytes = (bytes + page_size - 1) / page_size * page_size;
    std::uint64_t at = next.load(std::memory_order_relaxed);
    do {
        if (at + bytes > limit.value) return hva{0};
    } while (!next.compare_exchange_weak(at, at + bytes, std::memory_order_relaxed));
    return hva{at};
}

}  // namespace xos::memory
