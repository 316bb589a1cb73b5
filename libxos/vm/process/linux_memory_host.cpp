#include <linux/mman.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/memory/linux_mappings.hpp"
#include "libxos/vm/process/anonymous_edits.hpp"
#include "libxos/vm/process/break.hpp"
#include "libxos/vm/process/linux_memory.hpp"
#include "libxos/vm/process/linux_pages.hpp"

namespace xos::vm {

using namespace anonymous;
using base::is_error;
using base::raw_syscall;

namespace {

constexpr long read_write = PROT_READ | PROT_WRITE;

long as_long(gva at) {
    return static_cast<long>(at.value);
}
long as_long(std::uint64_t n) {
    return static_cast<long>(n);
}

bool is_zero(gva page) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(page.value);
    for (unsigned i = 0; i < page_size / sizeof *words; i++) {
        if (words[i]) return false;
    }
    return true;
}

/// Joins mappings whose border has remained after a part was restored, for example in a forked
/// process: mremap(2) needs a single mapping. The memory is copied, and nobody may write to it
/// meanwhile.
void join_mappings(gva begin, std::uint64_t length) {
    const gva end = begin + length;
    bool is_one = false;
    memory::for_each_linux_mapping([&](const memory::linux_mapping& m) {
        is_one = m.begin <= begin && end <= m.end;
        return m.end <= begin;
    });
    if (is_one || !cell::only_thread_inside()) return;
    const long n = as_long(length);
    const long copy = raw_syscall(__NR_mmap, 0, n, read_write,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (is_error(copy)) return;
    for (std::uint64_t offset = 0; offset < length; offset += page_size) {
        if (!is_zero(begin + offset))
            base::copy_words(reinterpret_cast<void*>(static_cast<std::uint64_t>(copy) + offset),
                             reinterpret_cast<const void*>(begin.value + offset), page_size);
    }
    if (is_error(
            raw_syscall(__NR_mremap, copy, n, n, MREMAP_MAYMOVE | MREMAP_FIXED, as_long(begin))))
        raw_syscall(__NR_munmap, copy, n);
}

/// Drops pages of zeros: Linux then takes them for pages that were never touched.
void drop_zero_pages(gva begin, std::uint64_t length) {
    constexpr unsigned at_once = 256;
    for (gva at = begin; at < begin + length; at = at + at_once * page_size) {
        unsigned char resident[at_once];
        const std::uint64_t left = begin + length - at;
        const std::uint64_t bytes = left < at_once * page_size ? left : at_once * page_size;
        if (raw_syscall(__NR_mincore, as_long(at), as_long(bytes), base::as_long(resident)) != 0)
            return;
        for_each_run(
            at, bytes,
            [&](gva page) { return resident[(page - at) / page_size] & 1 && is_zero(page); },
            [](gva from, std::uint64_t run, bool empty) {
                if (empty) raw_syscall(__NR_madvise, as_long(from), as_long(run), MADV_DONTNEED);
            });
    }
}

/// The rights that Linux should give on a page of the arena.
enum : int { as_it_is = -2, unmapped = -1 };  // or PROT_...
int protection_in_linux(arena& a, gva page) {
    const arch::entry e = entry_at(page);
    if (is_linux(e)) return as_it_is;
    if (is_mapped(e)) return protection_for(access_of(e));
    // The page is allocated but not mapped yet, or on loan to Linux.
    return a.pages().is_allocated(a.page_of(page)) ? as_it_is : unmapped;
}

/// Gives Linux's own tables the rights that the guest's have in the arena. Under the lock.
void tell_linux(arena& a, zero_pages what) {
    for_each_run(
        a.begin(), a.grown(), [&](gva page) { return protection_in_linux(a, page); },
        [&](gva from, std::uint64_t length, int protection) {
            if (protection == as_it_is) return;
            if (protection == unmapped) {
                raw_syscall(__NR_munmap, as_long(from), as_long(length));
                return;
            }
            if (what == zero_pages::go) drop_zero_pages(from, length);
            if (protection != read_write)
                raw_syscall(__NR_mprotect, as_long(from), as_long(length), protection);
        });
    raw_syscall(__NR_munmap, as_long(a.begin() + a.grown()), as_long(a.length() - a.grown()));
}

}  // namespace

void mark_as_linux(gva begin, std::uint64_t length, bool executable) {
    arena& a = memory_arena();
    const view& v = a.own_view();
    a.forget_large(begin, length);
    stale_pages none;  // Linux's own change makes KVM drop what may be cached
    for_each_run(
        begin, length, [](gva p) { return is_linux(entry_at(p)); },
        [](gva, std::uint64_t bytes, bool theirs) {
            if (!theirs) the_process_memory.linux_pages += bytes / page_size;
        });
    map_range(v, begin, length, a.frame_of(begin),
              executable ? access::read_write_execute : access::read_write, arch::level::page_4k,
              none, paging::accessed_and_dirty | paging::linux_managed);
}

void entrust(gva begin, std::uint64_t length) {
    memory::host_edit editing(lock());
    if (!memory_arena().exists()) return;
    if (all_mapped(begin, length) && !has_linux_pages(begin, length)) join_mappings(begin, length);
    for_each_run(
        begin, length,
        [](gva p) {
            const arch::entry e = entry_at(p);
            return is_linux(e) || !is_mapped(e) ? -1 : protection_for(access_of(e));
        },
        [](gva from, std::uint64_t bytes, int protection) {
            if (protection < 0) return;
            if (protection != read_write)
                raw_syscall(__NR_mprotect, as_long(from), as_long(bytes), protection);
            mark_as_linux(from, bytes, false);
        });
}

void entrust_around(gva address) {
    const gva page = address.align_down(page_size);
    gva begin = page, end = page + page_size;
    {
        const arena& a = memory_arena();
        memory::host_edit editing(lock());
        if (!a.exists() || !a.contains(page)) return;
        const arch::entry here = entry_at(page);
        if (!is_mapped(here) || is_linux(here)) return;
        const auto alike = [&](gva other) {
            const arch::entry e = entry_at(other);
            return is_mapped(e) && !is_linux(e) && access_of(e) == access_of(here);
        };
        for (gva below{begin.value - page_size}; begin > a.begin() && alike(below);
             below = gva{below.value - page_size})
            begin = below;
        while (a.contains(end) && alike(end)) end = end + page_size;
    }
    entrust(begin, end - begin);
}

gva first_forbidden(gva begin, std::uint64_t length, bool write) {
    const arena& a = memory_arena();
    if (!a.exists() || length == 0 || !a.contains(begin)) return gva{0};
    const gva end = a.contains(begin, length) ? begin + length : a.begin() + a.length();
    for (gva page = begin.align_down(page_size); page < end; page = page + page_size) {
        const arch::entry e = entry_at(page);
        if (!e.is_present() || (write && !e.has(arch::entry_flags::writable))) return page;
    }
    return gva{0};
}

cell::concealed_page conceal(std::uint64_t at) {
    arena& a = memory_arena();
    const gva page{at};
    memory::host_edit editing(lock());
    if (!a.exists() || !a.contains(page)) return {};
    const arch::entry e = entry_at(page);
    if (is_linux(e)) return {};
    if (is_mapped(e)) {
        raw_syscall(__NR_mprotect, as_long(page), page_size, protection_for(access_of(e)));
        return {at, true};
    }
    // Nobody may get the page meanwhile.
    if (page - a.begin() < a.grown() && !a.pages().take(a.page_of(page), 1)) return {};
    raw_syscall(__NR_munmap, as_long(page), page_size);
    return {at, false};
}

void reveal(const cell::concealed_page& concealed) {
    arena& a = memory_arena();
    const gva page{concealed.page};
    if (!concealed.page) return;
    memory::host_edit editing(lock());
    if (!a.exists()) return;  // Linux has learnt everything since
    if (concealed.was_mapped) {
        raw_syscall(__NR_mprotect, as_long(page), page_size, read_write);
        return;
    }
    const bool grown = page - a.begin() < a.grown();
    const long r =
        grown ? a.map_fresh(page, page_size)
              : raw_syscall(__NR_mmap, as_long(page), page_size, PROT_NONE,
                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (is_error(r))
        cell::die(nullptr, "Linux took a page of the process arena and gives no memory back",
                  static_cast<std::uint64_t>(-r));
    if (grown) a.pages().free(a.page_of(page), 1, true);
}

bool find_arena_code(std::uint64_t address) {
    const gva page = gva{address}.align_down(page_size);
    memory::host_edit editing(lock());
    const arena& a = memory_arena();
    if (!a.exists() || !a.contains(page) || !is_linux(entry_at(page))) return false;
    bool executable = false;
    memory::for_each_linux_mapping([&](const memory::linux_mapping& m) {
        executable = m.executable && m.begin <= page && page < m.end;
        return m.end <= page;
    });
    if (executable) mark_as_linux(page, page_size, true);
    return executable;
}

void expect_lent_pages() {
    {
        memory::host_edit editing(lock());
        if (the_process_memory.lends_pages) return;
        the_process_memory.lends_pages = true;
    }
    leave_all_break_to_linux();
}

void show_arena_to_linux() {
    memory::host_edit editing(lock());
    if (arena& a = memory_arena(); a.exists()) tell_linux(a, zero_pages::stay);
}

void retire_arena(zero_pages what) {
    arena& a = memory_arena();
    // Only a program that watches memory by a userfaultfd can see the difference.
    if (what == zero_pages::go) cell::the_cell.space().add_slots_apart();
    leave_all_break_to_linux();
    {
        memory::host_edit editing(lock());
        a.plan({});
        if (!a.exists()) return;
        // A thread frees a small extent without the lock. In the child of a fork that thread may
        // not exist.
        for (int patience = 1000; patience > 0 && a.has_claims(); patience--)
            raw_syscall(__NR_sched_yield);
        tell_linux(a, what);
        mark_as_linux(a.begin(), a.grown(), false);
        the_process_memory.linux_pages = 0;
        cell::the_cell.guard.length = 0;
        // On failure the module goes on leaving calls to libxos.
        (void)cell::guard_calls();
        a.retire();
    }
    cell::the_cell.space().readmit(a.own_view().begin);
}

}  // namespace xos::vm
