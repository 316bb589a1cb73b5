#include <linux/mman.h>

#include "libxos/base/errno.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/vm/process/anonymous_edits.hpp"
#include "libxos/vm/process/break.hpp"

namespace xos::vm {

using namespace anonymous;

void serve_anonymous_memory(std::uint64_t bytes, residency pager, std::uint64_t window) {
    the_process_arena.plan({.bytes = bytes,
                            .free_memory = visibility::allocated_only,
                            .pager = pager,
                            .window = window});
    if (bytes == 0) return;
    syscall::answer_inside(syscall::served::process_memory);
}

namespace {

/// Whether the arena serves memory without rights, parts of which the program will use later:
/// malloc takes the arenas of its threads that way, with MAP_NORESERVE. Such memory takes room in
/// the arena even if it is not used. Other mappings without rights only look for a place, or are
/// stacks.
bool may_reserve(std::uint64_t bytes, std::uint64_t flags) {
    constexpr std::uint64_t most = std::uint64_t{128} << 20;
    static std::uint64_t reserved = 0;
    if (!(flags & MAP_NORESERVE) || flags & MAP_STACK || bytes > most) return false;
    const std::uint64_t limit = memory_arena().options().bytes / 2;
    if (__atomic_add_fetch(&reserved, bytes, __ATOMIC_RELAXED) <= limit) return true;
    __atomic_sub_fetch(&reserved, bytes, __ATOMIC_RELAXED);
    return false;
}

/// Checks advice that changes nothing, unless the memory is Linux's.
long ignore_advice(gva begin, std::uint64_t length) {
    memory::guest_edit editing(lock());
    if (!memory_arena().exists() || has_linux_pages(begin, length)) return declined;
    return all_mapped(begin, length) ? 0 : -base::error::nomem;
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
              std::uint64_t flags, std::uint64_t, std::uint64_t offset) {
    constexpr std::uint64_t harmless =
        MAP_NORESERVE | MAP_STACK | MAP_POPULATE | MAP_NONBLOCK | MAP_DENYWRITE | MAP_EXECUTABLE;
    constexpr std::uint64_t fixed = MAP_FIXED | MAP_FIXED_NOREPLACE;
    const std::uint64_t bytes = round_up(length);
    if (length == 0 || bytes < length || offset % page_size != 0 || (protection & ~all_protections))
        return declined;
    // Linux decides about memory that may be executed, and about flags that only Linux knows.
    const bool ours =
        (flags & ~(harmless | fixed)) == (std::uint64_t{MAP_PRIVATE} | MAP_ANONYMOUS) &&
        !(protection & PROT_EXEC);
    if (flags & fixed) {
        if (address % page_size != 0) return declined;
        switch (place_of(address, bytes)) {
            case place::elsewhere:
                make_way(address, bytes);
                return declined;
            case place::across:
                return -base::error::nomem;
            case place::inside:
                return ours ? map_fixed(address, bytes, protection, flags) : declined;
        }
    }
    if (!ours || bytes > huge_page_size || !memory_arena().usable()) return declined;
    // Linux handles an address that the program wishes for.
    if (address != 0) return declined;
    const bool reserves = !(protection & all_protections);
    if (reserves ? !may_reserve(bytes, flags) : !(protection & PROT_READ)) return declined;
    const gva at = memory_arena().allocate_in_guest(
        bytes, contents::zeroed, reserves ? buddy::preference::clean : buddy::preference::dirty);
    if (!at.value) return declined;
    // Large pages would waste memory: most threads allocate little.
    if (reserves && memory_arena().options().pager == residency::huge)
        arch::in_host_from_kernel([&] { advise(at, bytes, residency::demand); });
    if (const vm::access wanted = grant(protection); wanted != vm::access::read_write) {
        memory::guest_edit editing(lock());
        memory_arena().forget_large(at, bytes);
        stale_pages stale;
        protect_range(memory_arena().own_view(), at, bytes, wanted, stale);
        flush(stale);
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
            return -base::error::inval;
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
            return -base::error::nomem;
        case place::inside:
            break;
    }
    const gva begin{address};
    if (protection & PROT_EXEC) return declined;
    memory::guest_edit editing(lock());
    if (!memory_arena().exists() || has_linux_pages(begin, bytes)) return declined;
    memory_arena().forget_large(begin, bytes);
    stale_pages stale;
    long result = 0;
    for_each_run(
        begin, bytes, [](gva p) { return is_mapped(entry_at(p)); },
        [&](gva from, std::uint64_t part, bool mapped) {
            if (!mapped) result = -base::error::nomem;
            if (result == 0)
                protect_range(memory_arena().own_view(), from, part, grant(protection), stale);
        });
    flush(stale);
    return result;
}

long xos_madvise(std::uint64_t address, std::uint64_t length, std::uint64_t advice) {
    const std::uint64_t bytes = round_up(length);
    if (address % page_size != 0 || bytes < length || bytes == 0) return declined;
    const gva begin{address};
    if (place_of(address, bytes) != place::inside) return declined;
    switch (advice) {
        case MADV_DONTNEED:
            return discard(begin, bytes);
        case MADV_FREE:  // the contents may go at any later time, or never
        case MADV_NORMAL:
        case MADV_RANDOM:
        case MADV_SEQUENTIAL:
        case MADV_WILLNEED:  // about read-ahead, which does not apply to this memory
        case MADV_DOFORK:
        case MADV_KEEPONFORK:
        case MADV_UNMERGEABLE:
        case MADV_DODUMP:  // already the case
            return ignore_advice(begin, bytes);
        default:
            return declined;
    }
}
}
