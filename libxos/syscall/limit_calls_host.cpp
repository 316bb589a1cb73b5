// Resource limits are Linux's, with two exceptions. libxos uses some of the descriptors; and where
// memory is limited, Linux must know what the program has.
#include <asm/resource.h>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using cell::context;
using cell::the_cell;
using kvm::resource_limit;

namespace {

long change(std::uint64_t wanted_at, std::uint64_t old_at) {
    resource_limit wanted, old;
    if (wanted_at && !copy_in(&wanted, wanted_at, sizeof wanted)) return -base::error::fault;
    {
        // Threads that make descriptors have the limit raised while they hold this lock.
        memory::held guard(memory::the_locks.contexts);
        if (long r = the_cell.descriptor_limit.change(wanted_at ? &wanted : nullptr, &old))
            return r;
    }
    return old_at && !copy_out(old_at, &old, sizeof old) ? -base::error::fault : 0;
}

/// A child that borrows this memory has limits of its own and needs no descriptor of libxos's.
bool is_ours(context& c, std::uint64_t resource) {
    if (static_cast<std::uint32_t>(resource) != RLIMIT_NOFILE) return false;
    if (!c.thread.shares_memory_only) return true;
    the_cell.descriptor_limit.make_real();
    return false;
}

/// Linux sees the arena as one mapping, most of which is a reserve.
void make_memory_count(const context& c, std::uint64_t resource, std::uint64_t wanted_at) {
    const auto which = static_cast<std::uint32_t>(resource);
    if (!wanted_at || c.thread.shares_memory_only || (which != RLIMIT_AS && which != RLIMIT_DATA))
        return;
    resource_limit wanted;
    if (copy_in(&wanted, wanted_at, sizeof wanted) && wanted.soft != RLIM_INFINITY)
        the_cell.hooks.retire_memory();
}

}  // namespace

long getrlimit(context& c, const std::uint64_t* a) {
    if (!is_ours(c, a[0]) || !a[1]) return forward(c, __NR_getrlimit, a);
    return change(0, a[1]);
}

long setrlimit(context& c, const std::uint64_t* a) {
    make_memory_count(c, a[0], a[1]);
    if (!is_ours(c, a[0]) || !a[1]) return forward(c, __NR_setrlimit, a);
    return change(a[1], 0);
}

long prlimit64(context& c, const std::uint64_t* a) {
    const auto process = static_cast<std::uint32_t>(a[0]);
    const bool self =
        !process || process == base::raw_syscall(__NR_getpid) || process == c.thread.id;
    if (self) make_memory_count(c, a[1], a[2]);
    if (!self || !is_ours(c, a[1])) return forward(c, __NR_prlimit64, a);
    return change(a[2], a[3]);
}

}  // namespace xos::syscall
