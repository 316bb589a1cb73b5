#include <linux/mman.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/vm/process/anonymous.hpp"
#include "libxos/vm/process/break.hpp"

namespace xos::vm {

program_break the_break;

namespace {

program_break& heap() {
    return the_break;
}
memory::edit_lock& lock() {
    return cell::the_cell.space().lock();
}

constexpr std::uint64_t align_up(std::uint64_t at, std::uint64_t unit) {
    return (at + unit - 1) & ~(unit - 1);
}

std::uint64_t linux_brk(std::uint64_t wanted) {
    return static_cast<std::uint64_t>(base::raw_syscall(__NR_brk, static_cast<long>(wanted)));
}

void learn() {
    if (heap().known) return;
    const std::uint64_t now = linux_brk(0);
    heap().begin = heap().current = heap().linux_break = now;
    heap().used_end = align_up(now, page_size);
    heap().known = true;
}

/// Rounds up to a large page, which a small heap cannot fill; a larger one is ahead by a quarter.
std::uint64_t ahead_of(std::uint64_t wanted) {
    constexpr std::uint64_t least = std::uint64_t{128} << 10, most = std::uint64_t{32} << 20;
    const std::uint64_t quarter = (wanted - heap().begin) / 4;
    const std::uint64_t more = quarter < least ? least : quarter > most ? most : quarter;
    return align_up(wanted + more, large_page_size);
}

/// Makes the heap's memory visible: kernel-side code zeroes it under the lock, when nothing may be
/// missing.
bool make_visible(std::uint64_t begin, std::uint64_t end) {
    using result = memory::address_space::chunk_result;
    for (gva at = gva{begin}.align_down(memory::chunk_size); at.value < end;
         at = at + memory::chunk_size) {
        base::outcome failure;
        const result r = cell::the_cell.space().add_chunk(at, failure);
        if (r != result::added && r != result::already_there) return false;
    }
    return true;
}

}  // namespace

void extend_break(std::uint64_t wanted) {
    std::uint64_t from, target;
    {
        memory::host_edit editing(lock());
        learn();
        if (wanted <= heap().linux_break || wanted < heap().begin) return;
        from = heap().current;
        target = ahead_of(wanted);
    }
    if (!make_visible(from, target)) return;
    memory::host_edit editing(lock());
    if (heap().is_linux || wanted <= heap().linux_break) return;
    const std::uint64_t old_end = align_up(heap().linux_break, page_size);
    std::uint64_t now = linux_brk(target);
    // The program's limits may allow less than a window.
    if (now < wanted) now = linux_brk(align_up(wanted, page_size));
    if (now < wanted) now = linux_brk(wanted);
    heap().linux_break = now;
    const std::uint64_t end = align_up(now, page_size);
    if (end <= old_end) return;
    const bool small = heap().pager == residency::demand || heap().pager == residency::window;
    const std::uint64_t first = small ? old_end : align_up(old_end, large_page_size);
    if (first < end) advise(gva{first}, end - first, heap().pager);
    std::uint64_t resident = heap().pager == residency::populate ? end - old_end : 0;
    if (heap().pager == residency::window)
        resident = heap().window < end - old_end ? heap().window : end - old_end;
    if (resident)
        base::raw_syscall(__NR_madvise, static_cast<long>(old_end), static_cast<long>(resident),
                          populate_write);
}

void set_linux_break(std::uint64_t wanted) {
    // Removes the right to execute from code that is about to go.
    if (heap().is_linux && wanted >= heap().begin && wanted < heap().linux_break)
        cell::the_cell.space().set_executable(gva{align_up(wanted, page_size)},
                                              heap().linux_break - wanted, false);
    memory::host_edit editing(lock());
    learn();
    // If Linux refuses a wish it answers with its own break, which must then be the program's.
    if (heap().linux_break != heap().current) linux_brk(heap().current);
    const std::uint64_t now = linux_brk(wanted);
    heap().current = heap().linux_break = now;
    if (now < heap().begin) heap().begin = now;
    heap().used_end = align_up(now, page_size);
}

void settle_break() {
    memory::host_edit editing(lock());
    if (heap().known && heap().linux_break != heap().current) linux_brk(heap().current);
    heap().known = false;
}

void leave_all_break_to_linux() {
    {
        memory::host_edit editing(lock());
        if (heap().is_linux) return;
        heap().is_linux = true;
    }
    settle_break();
}

void leave_break_to_linux_from_host(std::uint64_t address, std::uint64_t length) {
    if (heap().contains(address, length)) leave_all_break_to_linux();
}

void serve_break(residency pager, std::uint64_t window) {
    heap().pager = pager;
    heap().window = window;
    syscall::answer_inside(syscall::served::program_break);
}

}  // namespace xos::vm
