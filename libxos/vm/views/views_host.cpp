#include <linux/mman.h>

#include <utility>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/program/sanitizers.hpp"
#include "libxos/vm/views/frame_pool.hpp"
#include "libxos/vm/views/spaces.hpp"

namespace xos::vm {

using base::outcome;
using base::raw_syscall;
using base::step;

view_table the_views;

namespace {

constexpr std::uint64_t first_view = program::free_of_sanitizers.begin;
std::uint64_t next_view = first_view;

/// Makes the lists of a new view, which follows the last one.
outcome new_view(gva begin, std::uint64_t capacity, arch::level smallest, view*& made) {
    const unsigned n = the_views.count.load(std::memory_order_relaxed);
    if (n == view_table::capacity) return {step::reserve_memory, base::error::nomem};
    view& v = the_views.views[n];
    v.begin = begin;
    v.length = 0;
    v.fine_shift = arch::shift_of(smallest);
    v.coarse_shift = v.fine_shift + 9;
    const std::uint64_t piece = std::uint64_t{1} << v.coarse_shift;
    const std::uint64_t pieces = (capacity + piece - 1) / piece;
    const hva lists = cell::the_cell.arena.allocate_kernel(pieces * 16);
    if (!lists.value) return {step::page_tables, base::error::nomem};
    v.tables = reinterpret_cast<std::atomic<std::uint64_t>*>(lists.value);
    v.coarse = reinterpret_cast<arch::entry**>(lists.value + pieces * 8);
    v.physical_offset = cell::the_cell.space().physical_of(0).value;
    made = &v;
    return base::success;
}

void publish(const view& v) {
    const auto n = static_cast<unsigned>(&v - the_views.views);
    the_views.count.store(n + 1, std::memory_order_release);
}

bool is_separated(const view& v) {
    for (const other_space& s : the_spaces) {
        for (unsigned i = 0; s.in_use && i < s.view_count; i++) {
            if (s.shared[i] == &v) return true;
        }
    }
    return false;
}

/// Returns the smallest free view that is suitable, or null.
view* free_view(std::uint64_t length, arch::level smallest) {
    memory::host_edit editing(cell::the_cell.space().lock());
    view* best = nullptr;
    const unsigned n = the_views.count.load(std::memory_order_relaxed);
    for (view* v = the_views.views; v < the_views.views + n; v++) {
        if (v->free_length < length || v->fine() != smallest) continue;
        if (best && best->free_length <= v->free_length) continue;
        if (!is_separated(*v)) best = v;
    }
    return best;
}

}  // namespace

/// Steps over existing mappings. No chunk covers these addresses.
outcome reserve_addresses(std::uint64_t length, std::uint64_t alignment, long protection,
                          gva& begin) {
    memory::held guard(memory::the_locks.addresses);
    long r;
    do {
        begin = gva{next_view}.align_up(alignment);
        if (begin.value + length >= memory::user_end)
            return {step::reserve_memory, base::error::nomem};
        r = raw_syscall(__NR_mmap, static_cast<long>(begin.value), static_cast<long>(length),
                        protection,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        // A range with this alignment shares the tables of its gigabytes with nobody.
        next_view = alignment == huge_page_size ? (begin + length).align_up(alignment).value
                                                : begin.value + length;
        if (base::is_error(r) && r != -base::error::exist)
            return {step::reserve_memory, static_cast<int>(-r)};
    } while (base::is_error(r));
    return base::success;
}

outcome reserve_frames(std::uint64_t bytes) {
    memory::held guard(memory::the_locks.views);
    if (the_frames.ready()) return base::success;
    auto& space = cell::the_cell.space();
    const std::uint64_t length = (bytes + large_page_size - 1) / large_page_size * large_page_size;
    gva begin;
    if (auto failed = reserve_addresses(length, memory::chunk_size, PROT_READ | PROT_WRITE, begin);
        !failed.ok())
        return failed;
    raw_syscall(__NR_madvise, static_cast<long>(begin.value), static_cast<long>(length),
                MADV_HUGEPAGE);
    const gva end = (begin + length).align_up(memory::chunk_size);
    if (auto failed = space.exclude(begin, end); !failed.ok()) return failed;
    // The memory is mapped at its host address from the start: kernel-side code zeroes frames while
    // it holds the lock that adding a chunk would take.
    memory::region made;
    if (auto failed = space.add_frames(hva{begin.value}, length, made); !failed.ok()) return failed;
    the_frames.attach(made);
    return base::success;
}

outcome add_empty_view(gva begin, std::uint64_t capacity, view*& made) {
    if (auto failed = new_view(begin, capacity, arch::level::page_4k, made); !failed.ok())
        return failed;
    made->is_arena = true;
    publish(*made);
    return base::success;
}

outcome extend_view(view& v, std::uint64_t more) {
    if (attach_tables(v, cell::the_cell.space().tables(), more) != paging::status::ok)
        return {step::page_tables, base::error::nomem};
    __atomic_store_n(&v.length, v.length + more, __ATOMIC_RELEASE);
    share_new_tables();
    return base::success;
}

outcome reserve_view(std::uint64_t bytes, arch::level smallest, gva& begin) {
    memory::held guard(memory::the_locks.views);
    auto& space = cell::the_cell.space();
    const std::uint64_t unit =
        smallest == arch::level::page_4k ? memory::chunk_size : huge_page_size;
    const std::uint64_t length = (bytes + unit - 1) / unit * unit;
    if (length == 0 || length < bytes) return {step::bad_option, base::error::inval};
    if (view* again = free_view(length, smallest)) {
        begin = again->begin;
        __atomic_store_n(&again->length, std::exchange(again->free_length, 0), __ATOMIC_RELEASE);
        return base::success;
    }
    if (auto failed = reserve_addresses(length, huge_page_size, PROT_NONE, begin); !failed.ok())
        return failed;
    if (auto failed = space.exclude(begin, begin + length); !failed.ok()) return failed;
    memory::host_edit editing(space.lock());
    view* made = nullptr;
    if (auto failed = new_view(begin, length, smallest, made); !failed.ok()) return failed;
    if (auto failed = extend_view(*made, length); !failed.ok()) return failed;
    publish(*made);
    return base::success;
}

void give_back_view(const view& gone) {
    memory::held guard(memory::the_locks.views);
    view& v = the_views.views[&gone - the_views.views];
    v.free_length = v.length;
    __atomic_store_n(&v.length, 0, __ATOMIC_RELEASE);
}

}  // namespace xos::vm
