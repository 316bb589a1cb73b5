#include <linux/mman.h>

#include "libxos/syscall/local.hpp"
#include "libxos/vm/anonymous_edits.hpp"
#include "libxos/vm/heap.hpp"

namespace xos::vm {

using namespace anonymous;

void serve_anonymous_memory(std::uint64_t bytes, residency pager, std::uint64_t window) {
    the_process_arena.plan({.bytes = bytes,
                            .free_memory = visibility::allocated_only,
                            .pager = pager,
                            .window = window});
    if (bytes == 0) return;
    xos_local_calls[__NR_mmap] = xos_local_mmap;
    xos_local_calls[__NR_mprotect] = xos_local_mprotect;
    xos_local_calls[__NR_munmap] = xos_local_munmap;
    xos_local_calls[__NR_mremap] = xos_local_mremap;
    xos_local_calls[__NR_madvise] = xos_local_madvise;
    xos_local_calls[__NR_mlock] = xos_local_mlock;
    xos_local_calls[__NR_mlock2] = xos_local_mlock2;
    xos_local_calls[__NR_mbind] = xos_local_mbind;
}

namespace {

/// Whether memory without permissions, of which the program will use a part at a time, is taken
/// from the arena, where it has its room whether it is used or not: malloc's arenas of threads are
/// made so, with MAP_NORESERVE. Others only look for a place, or are stacks.
bool may_reserve(std::uint64_t bytes, std::uint64_t flags) {
    constexpr std::uint64_t most = std::uint64_t{128} << 20;
    static std::uint64_t reserved = 0;
    if (!(flags & MAP_NORESERVE) || flags & MAP_STACK || bytes > most) return false;
    const std::uint64_t limit = memory_arena().options().bytes / 2;
    if (__atomic_add_fetch(&reserved, bytes, __ATOMIC_RELAXED) <= limit) return true;
    __atomic_sub_fetch(&reserved, bytes, __ATOMIC_RELAXED);
    return false;
}

long expect_mapped(gva begin, std::uint64_t length) {
    memory::guest_edit editing(lock());
    return all_mapped(begin, length) ? 0 : error_nomem;
}

/// Advice that changes nothing, unless the memory is Linux's.
long ignore_advice(gva begin, std::uint64_t length) {
    memory::guest_edit editing(lock());
    if (has_linux_pages(begin, length)) return declined;
    return all_mapped(begin, length) ? 0 : error_nomem;
}

long lock_memory(long number, std::uint64_t address, std::uint64_t length, std::uint64_t flags) {
    const gva begin = gva{address}.align_down(page_size);
    const std::uint64_t bytes = round_up(length + (address - begin.value));
    if (bytes < length || bytes == 0 || place_of(begin.value, bytes) != place::inside)
        return declined;
    return hand_to_linux(begin, bytes, number, flags);
}

}  // namespace

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
using memory::buddy;

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
                make_way(address, bytes);
                return declined;
            case place::across:
                return error_nomem;
            case place::inside:
                return map_fixed(address, bytes, protection, flags, fd, offset, anonymous);
        }
    }
    if (!anonymous || bytes > huge_page_size || !memory_arena().usable()) return declined;
    // An address that somebody wishes for is Linux's to give.
    if (address != 0) return declined;
    const bool reserves = !(protection & all_protections);
    if (reserves ? !may_reserve(bytes, flags) : !(protection & PROT_READ)) return declined;
    const gva at = memory_arena().allocate_in_guest(
        bytes, contents::zeroed, reserves ? buddy::preference::clean : buddy::preference::dirty);
    if (!at.value) return declined;
    // A large page is too much for what most threads allocate.
    if (reserves) arch::in_host_from_kernel([&] { advise(at, bytes, residency::demand); });
    if (const vm::access wanted = grant(protection); wanted != vm::access::read_write) {
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
            make_way(address, bytes);
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
            make_way(address, bytes);
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
                protect_range(memory_arena().own_view(), begin, part, grant(protection), stale);
        });
    stale.flush();
    return result;
}

long xos_madvise(std::uint64_t address, std::uint64_t length, std::uint64_t advice) {
    const std::uint64_t bytes = round_up(length);
    if (address % page_size != 0 || bytes < length || bytes == 0) return declined;
    const gva begin{address};
    if (place_of(address, bytes) != place::inside) {
        if (advice == MADV_DONTFORK || advice == MADV_WIPEONFORK) make_way(address, bytes);
        return declined;
    }
    switch (advice) {
        case MADV_DONTNEED:
            return discard(begin, bytes);
        case MADV_FREE:  // the contents may go at any later time, or never
            return expect_mapped(begin, bytes);
        case MADV_NORMAL:
        case MADV_RANDOM:
        case MADV_SEQUENTIAL:  // about read-ahead, which this memory has none of
        case MADV_DOFORK:
        case MADV_KEEPONFORK:
        case MADV_UNMERGEABLE:
        case MADV_DODUMP:  // as it is already
            return ignore_advice(begin, bytes);
        case MADV_DONTFORK:
        case MADV_WIPEONFORK:
        case MADV_MERGEABLE:
        case MADV_DONTDUMP:
            return hand_to_linux(begin, bytes, __NR_madvise, advice);
        case MADV_HUGEPAGE:
        case MADV_NOHUGEPAGE:
        case MADV_COLD:
        case MADV_PAGEOUT:
        case MADV_POPULATE_READ:
        case MADV_POPULATE_WRITE:  // to Linux, which knows of no holes in the arena
            return expect_mapped(begin, bytes) == 0 ? declined : error_nomem;
        default:
            return declined;
    }
}

long xos_mlock(std::uint64_t address, std::uint64_t length) {
    return lock_memory(__NR_mlock, address, length, 0);
}

long xos_mlock2(std::uint64_t address, std::uint64_t length, std::uint64_t flags) {
    return lock_memory(__NR_mlock2, address, length, flags);
}

long xos_mbind(std::uint64_t address, std::uint64_t length, std::uint64_t mode, std::uint64_t nodes,
               std::uint64_t most, std::uint64_t flags) {
    const std::uint64_t bytes = round_up(length);
    if (address % page_size != 0 || bytes < length || bytes == 0 ||
        place_of(address, bytes) != place::inside)
        return declined;
    return hand_to_linux(gva{address}, bytes, __NR_mbind, mode, nodes, most, flags);
}
}
