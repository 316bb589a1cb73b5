#include <linux/mman.h>

#include "libxos/arch/guest_area.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/vm/anonymous.hpp"
#include "libxos/vm/view_edits.hpp"

namespace xos::vm {

namespace {

using base::is_error;
using memory::buddy;

constexpr long declined = XOS_LOCAL_DECLINED;
constexpr long error_fault = -14, error_exist = -17, error_inval = -22, error_nomem = -12;
constexpr std::uint64_t all_protections = PROT_READ | PROT_WRITE | PROT_EXEC;

arena& memory_arena() {
    return the_process_arena;
}
memory::edit_lock& lock() {
    return cell::the_cell.space().lock();
}

/// How many pages of the arena Linux manages: usually none, and then nobody needs to look.
std::uint64_t linux_pages = 0;

constexpr std::uint64_t round_up(std::uint64_t bytes) {
    return (bytes + page_size - 1) & ~(page_size - 1);
}

/// A page that may be written or executed may be read, as on all x86 without protection keys.
access access_for(std::uint64_t protection) {
    if (!(protection & all_protections)) return access::none;
    return static_cast<access>(1u | (protection & PROT_WRITE ? 2u : 0u) |
                               (protection & PROT_EXEC ? 4u : 0u));
}

/// The entry of an arena page, large or small.
arch::entry entry_at(gva page) {
    const view& v = memory_arena().own_view();
    const std::uint64_t i = v.piece_of(page);
    if (page - v.begin >= v.length) return {};
    return arch::load(v.is_replaced(i) ? *v.coarse[i] : *v.slot_of(page));
}
bool is_linux(arch::entry e) {
    return e.has(linux_managed);
}

/// A range that begins in the arena.
enum class place { elsewhere, inside, across };
place place_of(std::uint64_t address, std::uint64_t length) {
    const arena& a = memory_arena();
    if (!a.exists()) return place::elsewhere;
    if (a.contains(gva{address}, length)) return place::inside;
    const std::uint64_t end = address + length, begin = a.begin().value;
    const bool apart = end >= address && (end <= begin || address >= begin + a.length());
    return apart ? place::elsewhere : place::across;
}

struct linux_call {
    long number;
    std::uint64_t a[6];
    long result;
};

/// Made by this thread, in host mode. Not a forwarded call: a signal does not take it back.
long ask_linux(long number, std::uint64_t a0, std::uint64_t a1, std::uint64_t a2 = 0,
               std::uint64_t a3 = 0, std::uint64_t a4 = 0, std::uint64_t a5 = 0) {
    linux_call call{number, {a0, a1, a2, a3, a4, a5}, 0};
    arch::call_host_from_kernel(
        [](void* argument) {
            auto& c = *static_cast<linux_call*>(argument);
            const auto at = [&](unsigned i) { return static_cast<long>(c.a[i]); };
            c.result = base::raw_syscall(c.number, at(0), at(1), at(2), at(3), at(4), at(5));
        },
        &call);
    return call.result;
}

void restore_from_guest(gva begin, std::uint64_t length) {
    struct range {
        gva begin;
        std::uint64_t length;
    } r{begin, length};
    arch::call_host_from_kernel(
        [](void* argument) {
            const auto& r = *static_cast<range*>(argument);
            restore_memory(r.begin, r.length);
        },
        &r);
}

/// Runs of pages for which `which` is the same.
template <class Which, class F>
void for_each_run(gva begin, std::uint64_t length, Which&& which, F&& f) {
    const gva end = begin + length;
    while (begin < end) {
        const auto kind = which(begin);
        gva next = begin + page_size;
        while (next < end && which(next) == kind) next = next + page_size;
        f(begin, next - begin, kind);
        begin = next;
    }
}

/// Takes back from Linux what it manages in the range: fresh memory, no longer mapped.
void reclaim_from_linux(gva begin, std::uint64_t length, stale_translations& stale) {
    if (!linux_pages) return;
    for_each_run(
        begin, length, [](gva p) { return is_linux(entry_at(p)); },
        [&](gva from, std::uint64_t bytes, bool theirs) {
            if (!theirs) return;
            unmap_range(memory_arena().own_view(), from, bytes, false, stale);
            restore_from_guest(from, bytes);
            memory_arena().pages().set_clean(memory_arena().page_of(from), bytes / page_size, true);
            linux_pages -= bytes / page_size;
        });
}

/// After Linux has mapped something of its own there.
void leave_to_linux(gva begin, std::uint64_t length, stale_translations& stale) {
    arena& a = memory_arena();
    for (gva p = begin; p < begin + length; p = p + page_size) a.pages().take(a.page_of(p), 1);
    for_each_run(
        begin, length, [](gva p) { return is_linux(entry_at(p)); },
        [&](gva from, std::uint64_t bytes, bool theirs) {
            if (theirs) return;
            const view& v = a.own_view();
            map_range(v, from, bytes, a.frame_of(from), access::read_write_execute,
                      arch::level::page_4k, stale);
            for (std::uint64_t offset = 0; offset < bytes; offset += page_size) {
                arch::entry& slot = *v.slot_of(from + offset);
                arch::store(slot, arch::entry(arch::load(slot).bits |
                                              static_cast<std::uint64_t>(linux_managed)));
            }
            linux_pages += bytes / page_size;
        });
}

void zero_if_dirty(gva begin, std::uint64_t length) {
    arena& a = memory_arena();
    for (gva p = begin; p < begin + length; p = p + page_size) {
        if (!a.pages().is_clean(a.page_of(p))) zero_memory(p, page_size);
    }
    a.pages().set_clean(a.page_of(begin), length / page_size, false);
}

/// Zeroed pages that are the application's already, or just were taken, with this access.
void map_zeroed(gva begin, std::uint64_t length, access allowed, stale_translations& stale) {
    arena& a = memory_arena();
    map_range(a.own_view(), begin, length, a.frame_of(begin), access::read_write,
              arch::level::page_2m, stale);
    // A translation that forbids writing may still be cached.
    stale.flush();
    stale = {};
    zero_if_dirty(begin, length);
    if (allowed != access::read_write) {
        protect_range(a.own_view(), begin, length, allowed, stale);
    }
}

long unmap(gva begin, std::uint64_t length) {
    arena& a = memory_arena();
    bool trim;
    {
        memory::guest_edit editing(lock());
        stale_translations stale;
        reclaim_from_linux(begin, length, stale);
        if (!a.give_back(begin, length, false)) {
            // Not all of it is mapped.
            for (gva p = begin; p < begin + length; p = p + page_size)
                a.give_back(p, page_size, false);
        }
        unmap_range(a.own_view(), begin, length, false, stale);
        stale.flush();
        trim = a.wants_trim();
    }
    if (trim) a.trim_in_guest();
    return 0;
}

/// MAP_FIXED over a part of the arena.
long map_fixed(std::uint64_t address, std::uint64_t length, std::uint64_t protection,
               std::uint64_t flags, std::uint64_t fd, std::uint64_t offset, bool anonymous) {
    arena& a = memory_arena();
    const gva begin{address};
    const std::uint64_t pages = length / page_size;
    if (begin - a.begin() + length > a.grown() && !a.grow_to_in_guest(begin - a.begin() + length))
        return error_nomem;
    memory::guest_edit editing(lock());
    stale_translations stale;
    if (flags & MAP_FIXED_NOREPLACE & ~std::uint64_t{MAP_FIXED}) {
        if (!a.pages().take(a.page_of(begin), pages)) return error_exist;
    }
    if (!anonymous) {
        const long result =
            ask_linux(__NR_mmap, address, length, protection,
                      (flags & ~std::uint64_t{MAP_FIXED_NOREPLACE}) | MAP_FIXED, fd, offset);
        if (!is_error(result)) leave_to_linux(begin, length, stale);
        stale.flush();
        return result;
    }
    reclaim_from_linux(begin, length, stale);
    for (gva p = begin; p < begin + length; p = p + page_size) a.pages().take(a.page_of(p), 1);
    map_zeroed(begin, length, access_for(protection), stale);
    stale.flush();
    return static_cast<long>(address);
}

/// How the mapping looks that a remap is about: all of it mapped, one access throughout.
enum class uniform { no, yes, linux_has_some };
uniform look(gva begin, std::uint64_t length, access& allowed) {
    if (linux_pages) {
        for (gva p = begin; p < begin + length; p = p + page_size) {
            if (is_linux(entry_at(p))) return uniform::linux_has_some;
        }
    }
    const arch::entry first = entry_at(begin);
    allowed = access_of(first);
    for (gva p = begin; p < begin + length; p = p + page_size) {
        const arch::entry e = entry_at(p);
        if (!is_mapped(e) || access_of(e) != allowed) return uniform::no;
    }
    return uniform::yes;
}

int protection_for(access a) {
    const auto bits = static_cast<unsigned>(a);
    return (bits & 1 ? PROT_READ : 0) | (bits & 2 ? PROT_WRITE : 0) | (bits & 4 ? PROT_EXEC : 0);
}

/// Where Linux manages some of the pages, Linux moves them; what they leave behind gets fresh
/// memory.
long move_by_linux(gva begin, std::uint64_t length, std::uint64_t wanted, std::uint64_t flags,
                   std::uint64_t target) {
    arena& a = memory_arena();
    memory::guest_edit editing(lock());
    const long result =
        ask_linux(__NR_mremap, begin.value, length, wanted, flags | MREMAP_MAYMOVE, target);
    if (is_error(result)) return result;
    const gva there{static_cast<std::uint64_t>(result)};
    stale_translations stale;
    if (place_of(there.value, wanted) == place::inside) leave_to_linux(there, wanted, stale);
    for (gva p = begin; p < begin + length; p = p + page_size) {
        if (is_linux(entry_at(p))) linux_pages--;
    }
    unmap_range(a.own_view(), begin, length, false, stale);
    stale.flush();
    restore_from_guest(begin, length);
    a.pages().set_clean(a.page_of(begin), length / page_size, true);
    if (flags & MREMAP_DONTUNMAP) {
        stale_translations again;
        map_zeroed(begin, length, access::read_write, again);
        again.flush();
    } else {
        a.pages().free(a.page_of(begin), length / page_size, true);
    }
    return result;
}

bool grow_in_place(gva begin, std::uint64_t length, std::uint64_t wanted, access allowed) {
    arena& a = memory_arena();
    const gva more = begin + length;
    const std::uint64_t bytes = wanted - length;
    if (more - a.begin() + bytes > a.grown()) return false;
    if (!a.pages().take(a.page_of(more), bytes / page_size)) return false;
    stale_translations stale;
    map_zeroed(more, bytes, allowed, stale);
    stale.flush();
    return true;
}

void copy_memory(gva to, gva from, std::uint64_t bytes) {
    auto* d = reinterpret_cast<void*>(to.value);
    const auto* s = reinterpret_cast<const void*>(from.value);
    std::uint64_t words = bytes / 8;
    asm volatile("rep movsq" : "+D"(d), "+S"(s), "+c"(words) : : "memory");
}

struct move_request {
    gva from;
    std::uint64_t length, wanted, target;
    int protection;
    bool fixed;
    long result;
};

/// Host mode: a new mapping of Linux's with a copy of what was ours.
void copy_out(void* argument) {
    auto& m = *static_cast<move_request*>(argument);
    const long where = m.fixed ? static_cast<long>(m.target) : 0;
    const long flags = MAP_PRIVATE | MAP_ANONYMOUS | (m.fixed ? MAP_FIXED : 0);
    m.result = base::raw_syscall(__NR_mmap, where, static_cast<long>(m.wanted),
                                 PROT_READ | PROT_WRITE, flags, -1, 0);
    if (is_error(m.result)) return;
    copy_memory(gva{static_cast<std::uint64_t>(m.result)}, m.from,
                m.length < m.wanted ? m.length : m.wanted);
    base::raw_syscall(__NR_mprotect, m.result, static_cast<long>(m.wanted), m.protection);
}

long unmap(gva begin, std::uint64_t length);
long map_fixed(std::uint64_t address, std::uint64_t length, std::uint64_t protection,
               std::uint64_t flags, std::uint64_t fd, std::uint64_t offset, bool anonymous);

/// To another extent of the arena, to a place that the application has chosen, or out of the arena
/// if it is full.
long move_by_copy(gva begin, std::uint64_t length, std::uint64_t wanted, std::uint64_t flags,
                  std::uint64_t target, access allowed) {
    arena& a = memory_arena();
    const bool fixed = flags & MREMAP_FIXED;
    gva moved;
    if (fixed && place_of(target, wanted) == place::inside) {
        const long r = map_fixed(target, wanted, PROT_READ | PROT_WRITE, MAP_FIXED, 0, 0, true);
        if (is_error(r)) return r;
        moved = gva{target};
    } else if (!fixed && wanted <= huge_page_size) {
        moved = a.allocate_in_guest(wanted, contents::zeroed, buddy::preference::dirty);
    }
    long result = static_cast<long>(moved.value);
    if (moved.value) {
        memory::guest_edit editing(lock());
        stale_translations stale;
        if (allowed == access::none)
            protect_range(a.own_view(), begin, length, access::read, stale);
        copy_memory(moved, begin, length < wanted ? length : wanted);
        protect_range(a.own_view(), moved, wanted, allowed, stale);
        stale.flush();
    } else {
        move_request m{begin, length, wanted, target, protection_for(allowed), fixed, 0};
        arch::call_host_from_kernel(copy_out, &m);
        if (is_error(m.result)) return m.result;
        result = m.result;
    }
    if (!(flags & MREMAP_DONTUNMAP)) {
        unmap(begin, length);
        return result;
    }
    memory::guest_edit editing(lock());
    stale_translations stale;
    map_zeroed(begin, length, allowed, stale);
    stale.flush();
    return result;
}

/// DONTNEED: the pages stay, their contents go.
long discard(gva begin, std::uint64_t length) {
    constexpr std::uint64_t few = 16 * page_size;
    memory::guest_edit editing(lock());
    bool all_writable = length <= few && !linux_pages, hole = false;
    for (gva p = begin; p < begin + length; p = p + page_size) {
        const arch::entry e = entry_at(p);
        if (!is_mapped(e)) hole = true;
        if (!e.is_present() || !e.has(arch::entry_flags::writable)) all_writable = false;
    }
    if (all_writable)
        zero_memory(begin, length);
    else if (const long r = ask_linux(__NR_madvise, begin.value, length, MADV_DONTNEED); r != 0)
        return r;
    return hole ? error_nomem : 0;
}

bool all_mapped(gva begin, std::uint64_t length) {
    for (gva p = begin; p < begin + length; p = p + page_size) {
        if (!is_mapped(entry_at(p))) return false;
    }
    return true;
}

}  // namespace

void serve_anonymous_memory(std::uint64_t bytes, residency pager) {
    the_process_arena.plan(
        {.bytes = bytes, .free_memory = visibility::allocated_only, .pager = pager});
    if (bytes == 0) return;
    xos_local_calls[__NR_mmap] = xos_local_mmap;
    xos_local_calls[__NR_mprotect] = xos_local_mprotect;
    xos_local_calls[__NR_munmap] = xos_local_munmap;
    xos_local_calls[__NR_mremap] = xos_local_mremap;
    xos_local_calls[__NR_madvise] = xos_local_madvise;
}

cell::refusal why_refused(std::uint64_t at) {
    const gva address{at};
    const arena& a = memory_arena();
    if (!a.exists() || !a.contains(address)) return {};
    const arch::entry e = entry_at(address.align_down(page_size));
    if (is_linux(e)) return {};
    return {.owned = true, .mapped = is_mapped(e), .protection = protection_for(access_of(e))};
}

}  // namespace xos::vm

extern "C" {

using namespace xos;
using namespace xos::vm;

long xos_mmap(std::uint64_t address, std::uint64_t length, std::uint64_t protection,
              std::uint64_t flags, std::uint64_t fd, std::uint64_t offset) {
    constexpr std::uint64_t harmless =
        MAP_NORESERVE | MAP_STACK | MAP_POPULATE | MAP_NONBLOCK | MAP_DENYWRITE | MAP_EXECUTABLE;
    constexpr std::uint64_t fixed = MAP_FIXED | MAP_FIXED_NOREPLACE;
    const std::uint64_t bytes = round_up(length);
    if (length == 0 || bytes < length || offset % page_size != 0 || (protection & ~all_protections))
        return declined;
    const bool anonymous =
        (flags & ~(harmless | fixed)) == (std::uint64_t{MAP_PRIVATE} | MAP_ANONYMOUS);
    if (flags & fixed) {
        if (address % page_size != 0) return declined;
        switch (place_of(address, bytes)) {
            case place::elsewhere:
                return declined;
            case place::across:
                return error_nomem;
            case place::inside:
                return map_fixed(address, bytes, protection, flags, fd, offset, anonymous);
        }
    }
    if (!anonymous || !(protection & PROT_READ) || bytes > huge_page_size) return declined;
    if (!memory_arena().usable()) return declined;
    // An address that somebody wishes for is Linux's to give.
    if (address != 0) return declined;
    const gva at =
        memory_arena().allocate_in_guest(bytes, contents::zeroed, buddy::preference::dirty);
    if (!at.value) return declined;
    if (const vm::access wanted = access_for(protection); wanted != vm::access::read_write) {
        memory::guest_edit editing(lock());
        stale_translations stale;
        protect_range(memory_arena().own_view(), at, bytes, wanted, stale);
        stale.flush();
    }
    return static_cast<long>(at.value);
}

long xos_munmap(std::uint64_t address, std::uint64_t length) {
    const std::uint64_t bytes = round_up(length);
    if (address % page_size != 0 || length == 0 || bytes < length) return declined;
    switch (place_of(address, bytes)) {
        case place::elsewhere:
            return declined;
        case place::across:
            return error_inval;
        case place::inside:
            return unmap(gva{address}, bytes);
    }
    return declined;
}

long xos_mprotect(std::uint64_t address, std::uint64_t length, std::uint64_t protection) {
    const std::uint64_t bytes = round_up(length);
    if (address % page_size != 0 || bytes < length || (protection & ~all_protections))
        return declined;
    if (bytes == 0) return declined;
    switch (place_of(address, bytes)) {
        case place::elsewhere:
            return declined;
        case place::across:
            return error_nomem;
        case place::inside:
            break;
    }
    memory::guest_edit editing(lock());
    stale_translations stale;
    long result = 0;
    enum class kind { hole, ours, theirs };
    for_each_run(
        gva{address}, bytes,
        [](gva p) {
            const arch::entry e = entry_at(p);
            return is_linux(e) ? kind::theirs : is_mapped(e) ? kind::ours : kind::hole;
        },
        [&](gva begin, std::uint64_t part, kind k) {
            if (result != 0) return;
            if (k == kind::hole) result = error_nomem;
            if (k == kind::theirs) result = ask_linux(__NR_mprotect, begin.value, part, protection);
            if (k == kind::ours)
                protect_range(memory_arena().own_view(), begin, part, access_for(protection),
                              stale);
        });
    stale.flush();
    return result;
}

long xos_madvise(std::uint64_t address, std::uint64_t length, std::uint64_t advice) {
    const std::uint64_t bytes = round_up(length);
    if (address % page_size != 0 || bytes < length || bytes == 0) return declined;
    if (place_of(address, bytes) != place::inside) return declined;
    constexpr std::uint64_t dont_fork = 10, wipe_on_fork = 18;
    if (advice == MADV_DONTNEED) return discard(gva{address}, bytes);
    if (advice == MADV_FREE) {
        // The contents may go at any later time, or never.
        memory::guest_edit editing(lock());
        return all_mapped(gva{address}, bytes) ? 0 : error_nomem;
    }
    if (advice == dont_fork || advice == wipe_on_fork) {
        // It outlives nothing but the mapping, so the mapping becomes Linux's.
        memory::guest_edit editing(lock());
        if (!all_mapped(gva{address}, bytes)) return error_nomem;
        const long r = ask_linux(__NR_madvise, address, bytes, advice);
        stale_translations stale;
        if (r == 0) leave_to_linux(gva{address}, bytes, stale);
        stale.flush();
        return r;
    }
    return declined;
}

long xos_mremap(std::uint64_t address, std::uint64_t length, std::uint64_t wanted,
                std::uint64_t flags, std::uint64_t target) {
    const std::uint64_t bytes = round_up(length), more = round_up(wanted);
    if (address % page_size != 0 || bytes < length || more < wanted || more == 0) return declined;
    const bool onto_arena = (flags & MREMAP_FIXED) && place_of(target, more) != place::elsewhere;
    const place from = place_of(address, bytes ? bytes : page_size);
    if (from == place::elsewhere && !onto_arena) return declined;
    if (from == place::across || (onto_arena && place_of(target, more) == place::across))
        return error_inval;
    constexpr std::uint64_t known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    if ((flags & ~known) || bytes == 0) return error_inval;
    if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(flags & MREMAP_MAYMOVE))
        return error_inval;
    if ((flags & MREMAP_DONTUNMAP) && bytes != more) return error_inval;
    if ((flags & MREMAP_FIXED) &&
        (target % page_size != 0 || (target < address + bytes && address < target + more)))
        return error_inval;
    arena& a = memory_arena();
    const gva begin{address};
    if (from == place::elsewhere) {
        if (gva{target} - a.begin() + more > a.grown()) return error_nomem;
        memory::guest_edit editing(lock());
        const long r = ask_linux(__NR_mremap, address, bytes, more, flags, target);
        stale_translations stale;
        if (!is_error(r)) leave_to_linux(gva{target}, more, stale);
        stale.flush();
        return r;
    }
    vm::access allowed = access_of(entry_at(begin));
    const bool elsewhere = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP);
    uniform found;
    {
        memory::guest_edit editing(lock());
        found = look(begin, bytes, allowed);
        if (found == uniform::no) return error_fault;
        if (found == uniform::yes && !elsewhere && more >= bytes) {
            if (more == bytes || grow_in_place(begin, bytes, more, allowed))
                return static_cast<long>(address);
            if (!(flags & MREMAP_MAYMOVE)) return error_nomem;
        }
    }
    if (more < bytes && !elsewhere) {
        unmap(begin + more, bytes - more);
        return static_cast<long>(address);
    }
    return found == uniform::linux_has_some
               ? move_by_linux(begin, bytes, more, flags, target)
               : move_by_copy(begin, bytes, more, flags, target, allowed);
}

long xos_brk(std::uint64_t) {
    return declined;
}
}
