// Kernel side: mremap of anonymous memory of the process.
#include <linux/mman.h>

#include "libxos/arch/guest_area.hpp"
#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/vm/process/anonymous_edits.hpp"
#include "libxos/vm/process/break.hpp"

namespace xos::vm::anonymous {

namespace {

using base::is_error;
using memory::buddy;

/// Whether all of it is mapped with the same access.
bool is_uniform(gva begin, std::uint64_t length, access& allowed) {
    const arch::entry first = entry_at(begin);
    allowed = access_of(first);
    for (gva p = begin; p < begin + length; p = p + page_size) {
        const arch::entry e = entry_at(p);
        if (!is_mapped(e) || access_of(e) != allowed) return false;
    }
    return true;
}

bool grow_in_place(gva begin, std::uint64_t length, std::uint64_t wanted, access allowed) {
    arena& a = memory_arena();
    const gva more = begin + length;
    const std::uint64_t bytes = wanted - length;
    if (more - a.begin() + bytes > a.grown()) return false;
    if (!a.pages().take(a.page_of(more), bytes / page_size)) return false;
    stale_pages stale;
    map_zeroed(more, bytes, allowed, stale);
    flush(stale);
    return true;
}

void copy_memory(gva to, gva from, std::uint64_t bytes) {
    base::copy_words(reinterpret_cast<void*>(to.value), reinterpret_cast<const void*>(from.value),
                     bytes);
}

/// Makes a new mapping of Linux's with a copy of arena memory.
long copy_out(gva from, std::uint64_t length, std::uint64_t wanted, access allowed,
              const std::uint64_t* target) {
    long result = 0;
    arch::in_host_from_kernel([&] {
        const long where = target ? static_cast<long>(*target) : 0;
        const long flags = MAP_PRIVATE | MAP_ANONYMOUS | (target ? MAP_FIXED : 0);
        const long bytes = static_cast<long>(wanted);
        result = base::raw_syscall(__NR_mmap, where, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
        if (is_error(result)) return;
        copy_memory(gva{static_cast<std::uint64_t>(result)}, from,
                    length < wanted ? length : wanted);
        base::raw_syscall(__NR_mprotect, result, bytes, protection_for(allowed));
    });
    return result;
}

/// Moves to another extent of the arena, to a place that the application has chosen, or out of the
/// arena if it is full.
long move_by_copy(gva begin, std::uint64_t length, std::uint64_t wanted, std::uint64_t flags,
                  std::uint64_t target, access allowed) {
    arena& a = memory_arena();
    const bool fixed = flags & MREMAP_FIXED;
    gva moved;
    if (fixed && place_of(target, wanted) == place::inside) {
        const long r = map_fixed(target, wanted, PROT_READ | PROT_WRITE, MAP_FIXED);
        if (r == declined || is_error(r)) return r;
        moved = gva{target};
    } else if (!fixed && wanted <= huge_page_size) {
        moved = a.allocate_in_guest(wanted, contents::zeroed, buddy::preference::dirty);
    }
    long result = static_cast<long>(moved.value);
    if (moved.value) {
        memory::guest_edit editing(lock());
        stale_pages stale;
        // Memory that the copy touches must be present: a fault would need the lock.
        a.forget_large(begin, length);
        a.forget_large(moved, wanted);
        protect_range(a.own_view(), begin, length, allowed == access::none ? access::read : allowed,
                      stale);
        protect_range(a.own_view(), moved, wanted, access::read_write, stale);
        copy_memory(moved, begin, length < wanted ? length : wanted);
        protect_range(a.own_view(), moved, wanted, allowed, stale);
        flush(stale);
    } else {
        result = copy_out(begin, length, wanted, allowed, fixed ? &target : nullptr);
        if (is_error(result)) return result;
    }
    if (!(flags & MREMAP_DONTUNMAP)) {
        unmap(begin, length);
        return result;
    }
    memory::guest_edit editing(lock());
    stale_pages stale;
    map_zeroed(begin, length, allowed, stale);
    flush(stale);
    return result;
}

}  // namespace

}  // namespace xos::vm::anonymous

extern "C" {

using namespace xos;
using namespace xos::vm;
using namespace xos::vm::anonymous;

long xos_mremap(std::uint64_t address, std::uint64_t length, std::uint64_t wanted,
                std::uint64_t flags, std::uint64_t target) {
    const std::uint64_t bytes = round_up(length), more = round_up(wanted);
    if (address % page_size != 0 || bytes < length || more < wanted || more == 0) return declined;
    const bool onto_arena = (flags & MREMAP_FIXED) && place_of(target, more) != place::elsewhere;
    const place from = place_of(address, bytes ? bytes : page_size);
    if (from == place::elsewhere) make_way(address, bytes ? bytes : page_size);
    if ((flags & MREMAP_FIXED) && !onto_arena) make_way(target, more);
    if (from == place::elsewhere && !onto_arena) return declined;
    if (from == place::across || (onto_arena && place_of(target, more) == place::across))
        return -base::error::inval;
    constexpr std::uint64_t known = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
    if ((flags & ~known) || bytes == 0) return -base::error::inval;
    if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(flags & MREMAP_MAYMOVE))
        return -base::error::inval;
    if ((flags & MREMAP_DONTUNMAP) && bytes != more) return -base::error::inval;
    if ((flags & MREMAP_FIXED) &&
        (target % page_size != 0 || (target < address + bytes && address < target + more)))
        return -base::error::inval;
    if (from == place::elsewhere) return declined;
    const gva begin{address};
    vm::access allowed;
    const bool elsewhere = flags & (MREMAP_FIXED | MREMAP_DONTUNMAP);
    {
        memory::guest_edit editing(lock());
        if (!memory_arena().exists() || is_for_linux(begin, bytes)) return declined;
        if (onto_arena && has_linux_pages(gva{target}, more)) return declined;
        if (!is_uniform(begin, bytes, allowed)) return -base::error::fault;
        if (more == bytes && !elsewhere) return static_cast<long>(address);
        if (!elsewhere && more > bytes) {
            if (grow_in_place(begin, bytes, more, allowed)) return static_cast<long>(address);
            if (!(flags & MREMAP_MAYMOVE)) return -base::error::nomem;
        }
    }
    if (more < bytes && !elsewhere) {
        unmap(begin + more, bytes - more);
        return static_cast<long>(address);
    }
    return move_by_copy(begin, bytes, more, flags, target, allowed);
}
}
