// System calls about memory that leave the guest: Linux carries them out. Two things must be kept
// up to date in the guest's page tables, which KVM does not change with Linux's.
//
// The first is what may be executed. The right is removed before the call that takes it away, which
// then makes KVM drop the translations. It is added after the call that gives it, or at the first
// attempt to execute (find_code).
//
// The second is what Linux manages in the process arena: see linux_memory.hpp. The local calls of
// anonymous_guest.cpp handle memory that is libxos's alone; the rest arrives here.
#include <linux/mman.h>
#include <linux/shm.h>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/own_memory.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/vm/process/anonymous_edits.hpp"
#include "libxos/vm/process/break.hpp"
#include "libxos/vm/process/linux_memory.hpp"
#include "libxos/vm/process/linux_pages.hpp"

namespace xos::syscall {

using namespace vm;
using namespace vm::anonymous;
using base::is_error;
using base::raw_syscall;
using cell::context;
using cell::the_cell;

namespace {

constexpr std::uint64_t exact_place = MAP_FIXED | MAP_FIXED_NOREPLACE;

bool is_taken_back(const context& c) {
    return c.stop.where == cell::position::taken_back;
}

/// Whether a call concerns memory that the cell needs to continue. Linux refuses the same for its
/// own mappings and for sealed ones.
bool is_own(std::uint64_t begin, std::uint64_t length) {
    if (begin % page_size != 0 || round_up(length) < length) return false;
    return length != 0 && cell::overlaps_own_memory(gva{begin}, round_up(length));
}

void set_executable(std::uint64_t begin, std::uint64_t length, bool executable) {
    // Linux refuses ranges that are misaligned or wrap around; it rounds lengths up.
    const std::uint64_t bytes = round_up(length);
    if (begin % page_size != 0 || bytes < length || begin + bytes < begin) return;
    if (!the_cell.space().set_executable(gva{begin}, bytes, executable))
        cell::die(nullptr, "no page tables left for a range that may not be executed", begin);
}

/// A range of whole pages in the arena, for Linux.
struct range {
    gva begin;
    std::uint64_t length = 0;
    bool is_in_arena = false;

    range(std::uint64_t address, std::uint64_t bytes) : begin(address), length(round_up(bytes)) {
        is_in_arena = address % page_size == 0 && length >= bytes && length != 0 &&
                      place_of(address, length) == place::inside;
    }
};

/// Returns the length of the mapped part at the beginning of the range.
std::uint64_t mapped_length(const range& r) {
    memory::host_edit editing(lock());
    std::uint64_t bytes = 0;
    while (bytes < r.length && is_mapped(entry_at(r.begin + bytes))) bytes += page_size;
    return bytes;
}

/// Allocates the free pages of the range, for Linux to map something there.
void take_free_pages(const range& r) {
    const arena& a = memory_arena();
    memory::buddy& pages = memory_arena().pages();
    for (gva p = r.begin; p < r.begin + r.length; p = p + page_size) pages.take(a.page_of(p), 1);
}
/// Frees the pages that were not mapped after all.
void give_back_unmapped(const range& r) {
    arena& a = memory_arena();
    const memory::buddy& pages = a.pages();
    for (gva p = r.begin; p < r.begin + r.length; p = p + page_size) {
        if (!is_mapped(entry_at(p))) a.give_back(p, page_size, pages.is_clean(a.page_of(p)));
    }
}

/// A stack grows into the free addresses below it, as far as stacks grow: Linux needs a hole there.
void make_room_below(gva begin) {
    constexpr std::uint64_t most = std::uint64_t{8} << 20;
    arena& a = memory_arena();
    gva lowest = begin;
    while (lowest > a.begin() && begin - lowest < most && a.pages().take(a.page_of(lowest) - 1, 1))
        lowest = gva{lowest.value - page_size};
    if (lowest == begin) return;
    raw_syscall(__NR_munmap, static_cast<long>(lowest.value), static_cast<long>(begin - lowest));
    mark_as_linux(lowest, begin - lowest, false);
}

/// Carries out MAP_FIXED over a part of the arena for a mapping that is Linux's.
long map_in_arena(context& c, const range& r, const std::uint64_t* a) {
    arena& arena = memory_arena();
    const std::uint64_t end = r.begin - arena.begin() + r.length;
    if (end > arena.grown() && !arena.grow_to(end).ok()) return -base::error::nomem;
    const bool replaces = !(a[3] & MAP_FIXED_NOREPLACE);
    bool retired = false;
    {
        memory::host_edit editing(lock());
        retired = !arena.exists();
        if (!retired && !replaces &&
            !arena.pages().take(arena.page_of(r.begin), r.length / page_size))
            return -base::error::exist;
        if (!retired) take_free_pages(r);
    }
    if (retired) return forward(c, __NR_mmap, a);
    const std::uint64_t flags = (a[3] & ~exact_place) | MAP_FIXED;
    const std::uint64_t call[6] = {a[0], a[1], a[2], flags, a[4], a[5]};
    const long result = forward(c, __NR_mmap, call);
    memory::host_edit editing(lock());
    if (!arena.exists()) return result;  // retired meanwhile
    if (is_taken_back(c) || is_error(result)) {
        give_back_unmapped(r);
        return result;
    }
    mark_as_linux(r.begin, r.length, a[2] & PROT_EXEC);
    if (a[3] & MAP_GROWSDOWN) make_room_below(r.begin);
    return result;
}

/// Carries out munmap of a part of the arena in which Linux manages something: new memory takes its
/// place and belongs to the arena again.
long unmap_in_arena(const range& r) {
    if (const long error = memory_arena().map_fresh(r.begin, r.length)) return error;
    arena& a = memory_arena();
    memory::host_edit editing(lock());
    if (!a.exists())  // retired meanwhile
        return raw_syscall(__NR_munmap, static_cast<long>(r.begin.value),
                           static_cast<long>(r.length));
    for (gva p = r.begin; p < r.begin + r.length; p = p + page_size) {
        if (is_linux(entry_at(p))) the_process_memory.linux_pages--;
    }
    stale_pages none;
    unmap_range(a.own_view(), r.begin, r.length, false, none);
    // If another thread has touched it just before, KVM forgets that now.
    raw_syscall(__NR_madvise, static_cast<long>(r.begin.value), static_cast<long>(r.length),
                MADV_DONTNEED);
    for (gva p = r.begin; p < r.begin + r.length; p = p + page_size)
        a.give_back(p, page_size, true);
    return 0;
}

/// Cleans up the range in the arena that a call has moved away.
void take_place_of_moved(const range& r) {
    if (r.is_in_arena) unmap_in_arena(r);
}

long remap_in_arena(context& c, const range& from, const std::uint64_t* a) {
    const std::uint64_t wanted = round_up(a[2]);
    const bool fixed = a[3] & MREMAP_FIXED;
    const range target(fixed ? a[4] : 0, fixed ? wanted : 0);
    if (from.is_in_arena && mapped_length(from) < from.length) return -base::error::fault;
    if (from.is_in_arena) entrust(from.begin, from.length);
    if (target.is_in_arena) {
        memory::host_edit editing(lock());
        take_free_pages(target);
    }
    const long result = forward(c, __NR_mremap, a);
    const bool failed = is_taken_back(c) || is_error(result);
    if (target.is_in_arena) {
        memory::host_edit editing(lock());
        if (failed)
            give_back_unmapped(target);
        else
            mark_as_linux(target.begin, target.length, false);
    }
    if (failed || (a[3] & MREMAP_DONTUNMAP)) return result;
    const bool moved = static_cast<std::uint64_t>(result) != from.begin.value;
    if (moved)
        take_place_of_moved(from);
    else if (wanted < from.length)
        take_place_of_moved({from.begin.value + wanted, from.length - wanted});
    return result;
}

/// Makes a call that tells Linux something about a range, which becomes Linux's.
long tell_of_range(context& c, std::uint64_t number, const std::uint64_t* a, bool goes_on) {
    const std::uint64_t begin = a[0] & ~(page_size - 1);
    const range r(begin, a[1] + (a[0] - begin));
    if (!r.is_in_arena) {
        leave_break_to_linux_from_host(a[0], a[1]);
        return forward(c, number, a);
    }
    entrust(r.begin, r.length);
    if (mapped_length(r) == r.length) return forward(c, number, a);
    // The range has holes that Linux does not know of. Some calls continue behind them.
    long error = 0;
    for (std::uint64_t at = 0; at < r.length && error == 0;) {
        const range rest(r.begin.value + at, r.length - at);
        const std::uint64_t length = mapped_length(rest);
        if (length) {
            const std::uint64_t part[6] = {rest.begin.value, length, a[2], a[3], a[4], a[5]};
            error = forward(c, number, part);
            if (is_taken_back(c)) return error;
        }
        if (!goes_on) break;
        at += length ? length : page_size;
    }
    return error != 0 ? error : -base::error::nomem;
}

}  // namespace

long mmap(context& c, const std::uint64_t* a) {
    const bool executable = a[2] & PROT_EXEC;
    // The descriptor of an anonymous mapping has no meaning.
    const std::uint64_t descriptor = a[3] & MAP_ANONYMOUS ? ~std::uint64_t{0} : a[4];
    const std::uint64_t call[6] = {a[0], a[1], a[2], a[3], descriptor, a[5]};
    if (a[3] & exact_place) {
        if (const range r(a[0], a[1]); r.is_in_arena) return map_in_arena(c, r, call);
        if (a[3] & MAP_FIXED && is_own(a[0], a[1])) return -base::error::perm;
    }
    if (a[3] & MAP_FIXED && !executable) set_executable(a[0], a[1], false);
    const long r = forward(c, __NR_mmap, call);
    // Otherwise the address may have had code that shmdt(2) or another process took away.
    if (!is_error(r) && (executable || !(a[3] & MAP_FIXED)))
        set_executable(static_cast<std::uint64_t>(r), a[1], executable);
    return r;
}

long munmap(context& c, const std::uint64_t* a) {
    if (const range r(a[0], a[1]); r.is_in_arena) return unmap_in_arena(r);
    if (is_own(a[0], a[1])) return -base::error::perm;
    set_executable(a[0], a[1], false);
    return forward(c, __NR_munmap, a);
}

namespace {

long change_protection(context& c, std::uint64_t number, const std::uint64_t* a) {
    const bool executable = a[2] & PROT_EXEC;
    const range r(a[0], a[1]);
    if (!r.is_in_arena && is_own(a[0], a[1])) return -base::error::perm;
    if (r.is_in_arena) {
        entrust(r.begin, r.length);
        const std::uint64_t mapped = mapped_length(r);
        if (mapped < r.length) {
            const std::uint64_t part[6] = {a[0], mapped, a[2], a[3]};
            const long result = mapped ? change_protection(c, number, part) : 0;
            return result != 0 ? result : -base::error::nomem;
        }
        memory::host_edit editing(lock());
        if (!executable) mark_as_linux(r.begin, r.length, false);
    } else if (!executable) {
        set_executable(a[0], a[1], false);
    }
    const long result = forward(c, number, a);
    if (!executable || result != 0 || is_taken_back(c)) return result;
    if (r.is_in_arena) {
        memory::host_edit editing(lock());
        mark_as_linux(r.begin, r.length, true);
    } else {
        set_executable(a[0], a[1], true);
    }
    return result;
}

}  // namespace

long mprotect(context& c, const std::uint64_t* a) {
    return change_protection(c, __NR_mprotect, a);
}

long pkey_mprotect(context& c, const std::uint64_t* a) {
    return change_protection(c, __NR_pkey_mprotect, a);
}

/// Code that has moved becomes executable at its new address when it is used.
long mremap(context& c, const std::uint64_t* a) {
    const range from(a[0], a[1]);
    const bool fixed = a[3] & MREMAP_FIXED;
    const bool onto_arena = fixed && range(a[4], a[2]).is_in_arena;
    if (from.is_in_arena || onto_arena) return remap_in_arena(c, from, a);
    // Linux gives this error for a range that is not a single mapping.
    if (is_own(a[0], a[1])) return -base::error::fault;
    if (fixed && is_own(a[4], a[2])) return -base::error::perm;
    set_executable(a[0], a[1], false);
    if (fixed) set_executable(a[4], a[2], false);
    const long r = forward(c, __NR_mremap, a);
    if (!is_error(r)) set_executable(static_cast<std::uint64_t>(r), a[2], false);
    return r;
}

long shmat(context& c, const std::uint64_t* a) {
    const long r = forward(c, __NR_shmat, a);
    if (is_error(r)) return r;
    struct {
        std::uint64_t permissions[6], size;
        std::uint64_t rest[16];
    } segment;
    static_assert(offsetof(shmid64_ds, shm_segsz) == offsetof(decltype(segment), size));
    static_assert(sizeof(shmid64_ds) <= sizeof segment);
    if (raw_syscall(__NR_shmctl, static_cast<long>(a[0]), IPC_STAT, base::as_long(&segment)) == 0)
        set_executable(static_cast<std::uint64_t>(r), segment.size, a[2] & SHM_EXEC);
    return r;
}

/// Advice without a lasting effect only goes to Linux. Any other advice, known or not, is a fact
/// about the range that stays with it.
long madvise(context& c, const std::uint64_t* a) {
    if (!range(a[0], a[1]).is_in_arena && is_own(a[0], a[1])) return -base::error::perm;
    switch (a[2]) {
        case MADV_NORMAL:
        case MADV_RANDOM:
        case MADV_SEQUENTIAL:
        case MADV_WILLNEED:
        case MADV_DONTNEED:
        case MADV_FREE:
        case MADV_COLD:
        case MADV_PAGEOUT:
        case MADV_POPULATE_READ:
        case MADV_POPULATE_WRITE:
            return forward(c, __NR_madvise, a);
        default:
            return tell_of_range(c, __NR_madvise, a, true);
    }
}

long mlock(context& c, const std::uint64_t* a) {
    return tell_of_range(c, __NR_mlock, a, false);
}

long mlock2(context& c, const std::uint64_t* a) {
    return tell_of_range(c, __NR_mlock2, a, false);
}

long mbind(context& c, const std::uint64_t* a) {
    return tell_of_range(c, __NR_mbind, a, false);
}

long set_mempolicy_home_node(context& c, const std::uint64_t* a) {
    return tell_of_range(c, __NR_set_mempolicy_home_node, a, false);
}

long mseal(context& c, const std::uint64_t* a) {
    return tell_of_range(c, number_of_mseal, a, false);
}

/// PR_SET_VMA: (option, what, address, length, value)
long name_memory(context& c, const std::uint64_t* a) {
    if (const range r(a[2], a[3]); r.is_in_arena) entrust(r.begin, r.length);
    leave_break_to_linux_from_host(a[2], a[3]);
    return forward(c, __NR_prctl, a);
}

/// Linux would make all of libxos's reserve resident, which is many gigabytes.
long mlockall(context& c, const std::uint64_t* a) {
    constexpr std::uint64_t which = MCL_CURRENT | MCL_FUTURE;
    const bool valid = (a[0] & which) && !(a[0] & ~(which | MCL_ONFAULT));
    const std::uint64_t call[6] = {valid ? a[0] | MCL_ONFAULT : a[0]};
    return forward(c, __NR_mlockall, call);
}

}  // namespace xos::syscall
