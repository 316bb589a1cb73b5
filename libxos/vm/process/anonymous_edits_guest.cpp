// Kernel side: the edits that mmap and its family are made of.
#include <linux/mman.h>

#include "libxos/arch/guest_area.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/vm/process/anonymous_edits.hpp"

namespace xos::vm::anonymous {

process_memory the_process_memory;

/// Memory that may be written or executed may be read, as on all x86 without protection keys.
access grant(std::uint64_t protection) {
    if (!(protection & PROT_WRITE)) cell::the_cell.guard.hides = true;
    if (!(protection & all_protections)) return access::none;
    return static_cast<access>(1u | (protection & PROT_WRITE ? 2u : 0u) |
                               (protection & PROT_EXEC ? 4u : 0u));
}

int protection_for(access a) {
    const auto bits = static_cast<unsigned>(a);
    return (bits & 1 ? PROT_READ : 0) | (bits & 2 ? PROT_WRITE : 0) | (bits & 4 ? PROT_EXEC : 0);
}

arch::entry entry_at(gva page) {
    const view& v = memory_arena().own_view();
    if (page - v.begin >= v.length) return {};
    const arch::entry e = v.covering(page);
    if (!is_untouched(e)) return e;
    if (memory_arena().is_kept(page)) return {};
    return {memory_arena().frame_of(page), flags_of(access::read_write)};
}

long ask_linux(long number, std::uint64_t a0, std::uint64_t a1, std::uint64_t a2) {
    long result = 0;
    arch::in_host_from_kernel([&] {
        const auto of = [](std::uint64_t a) { return static_cast<long>(a); };
        result = base::raw_syscall(number, of(a0), of(a1), of(a2));
    });
    return result;
}

namespace {

void zero_if_dirty(gva begin, std::uint64_t length) {
    const arena& a = memory_arena();
    memory::buddy& pages = memory_arena().pages();
    for (gva p = begin; p < begin + length; p = p + page_size) {
        if (!pages.is_clean(a.page_of(p))) zero_memory(p, page_size);
    }
    pages.set_clean(a.page_of(begin), length / page_size, false);
}

}  // namespace

void map_zeroed(gva begin, std::uint64_t length, access allowed, stale_pages& stale) {
    arena& a = memory_arena();
    map_range(a.own_view(), begin, length, a.frame_of(begin), access::read_write,
              arch::level::page_2m, stale);
    // A translation that forbids writing may still be cached.
    flush(stale);
    stale.clear();
    zero_if_dirty(begin, length);
    if (allowed != access::read_write) {
        protect_range(a.own_view(), begin, length, allowed, stale);
    }
}

bool all_mapped(gva begin, std::uint64_t length) {
    for (gva p = begin; p < begin + length; p = p + page_size) {
        if (!is_mapped(entry_at(p))) return false;
    }
    return true;
}

bool has_linux_pages(gva begin, std::uint64_t length) {
    if (!the_process_memory.linux_pages) return false;
    for (gva p = begin; p < begin + length; p = p + page_size) {
        if (is_linux(entry_at(p))) return true;
    }
    return false;
}

long unmap(gva begin, std::uint64_t length) {
    arena& a = memory_arena();
    const process_memory& known = the_process_memory;
    if (!known.linux_pages && !known.lends_pages && length <= extent_caches::most * page_size &&
        a.free_to_cache(begin, length))
        return 0;
    bool trim;
    {
        memory::guest_edit editing(lock());
        if (!a.exists() || is_for_linux(begin, length)) return declined;
        stale_pages stale;
        if (length >= large_extents::least * page_size && a.keep_large(begin, length, stale)) {
            flush(stale);
            return 0;
        }
        a.settle(begin, length);
        if (!a.give_back(begin, length, false)) {
            // A part of it is not mapped.
            for (gva p = begin; p < begin + length; p = p + page_size)
                a.give_back(p, page_size, false);
        }
        unmap_range(a.own_view(), begin, length, false, stale);
        flush(stale);
        trim = a.wants_trim();
    }
    if (trim) a.trim_in_guest();
    return 0;
}

long map_fixed(std::uint64_t address, std::uint64_t length, std::uint64_t protection,
               std::uint64_t flags) {
    arena& a = memory_arena();
    const gva begin{address};
    if (begin - a.begin() + length > a.grown() && !a.grow_to_in_guest(begin - a.begin() + length))
        return -base::error::nomem;
    memory::guest_edit editing(lock());
    if (!a.exists() || is_for_linux(begin, length)) return declined;
    a.settle(begin, length);
    if (flags & MAP_FIXED_NOREPLACE & ~std::uint64_t{MAP_FIXED}) {
        if (!a.pages().take(a.page_of(begin), length / page_size)) return -base::error::exist;
    }
    for (gva p = begin; p < begin + length; p = p + page_size) a.pages().take(a.page_of(p), 1);
    a.forget_large(begin, length);
    stale_pages stale;
    map_zeroed(begin, length, grant(protection), stale);
    flush(stale);
    return static_cast<long>(address);
}

long discard(gva begin, std::uint64_t length) {
    constexpr std::uint64_t few = 16 * page_size;
    memory::guest_edit editing(lock());
    if (!memory_arena().exists() || is_for_linux(begin, length)) return declined;
    bool all_writable = length <= few && !memory_arena().is_untouched(begin, length), hole = false;
    for (gva p = begin; p < begin + length; p = p + page_size) {
        const arch::entry e = entry_at(p);
        if (!is_mapped(e)) hole = true;
        if (!e.is_present() || !e.has(arch::entry_flags::writable)) all_writable = false;
    }
    if (all_writable)
        zero_memory(begin, length);
    else if (const long r = ask_linux(__NR_madvise, begin.value, length, MADV_DONTNEED); r != 0)
        return r;
    return hole ? -base::error::nomem : 0;
}

}  // namespace xos::vm::anonymous
