// Calls that change what may be executed. Linux carries them out; the guest's page tables, which
// KVM does not change with Linux's, follow in this one respect.
//
// The right to execute goes before the call that takes it away: the call then makes KVM drop the
// translations. It comes after the call that gives it, or at the first attempt (find_code).
//
// And mlockall, which would find the memory that libxos keeps in reserve.
#include <linux/mman.h>
#include <linux/shm.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using base::is_error;
using cell::context;
using cell::the_cell;

namespace {

void set_executable(std::uint64_t begin, std::uint64_t length, bool executable) {
    // Linux refuses what is not aligned, or wraps around; lengths it rounds up.
    const std::uint64_t bytes = (length + page_size - 1) & ~(page_size - 1);
    if (begin % page_size != 0 || bytes < length || begin + bytes < begin) return;
    if (!the_cell.space().set_executable(gva{begin}, bytes, executable))
        cell::die(nullptr, "no page tables left for a range that may not be executed", begin);
}

long change_protection(context& c, std::uint64_t number, const std::uint64_t* a) {
    const bool executable = a[2] & PROT_EXEC;
    if (!executable) set_executable(a[0], a[1], false);
    const long r = forward(c, number, a);
    if (executable && r == 0) set_executable(a[0], a[1], true);
    return r;
}

}  // namespace

long mmap(context& c, const std::uint64_t* a) {
    const bool executable = a[2] & PROT_EXEC;
    if (a[3] & MAP_FIXED && !executable) set_executable(a[0], a[1], false);
    // Whatever descriptor anonymous memory is asked for with means nothing.
    const std::uint64_t descriptor = a[3] & MAP_ANONYMOUS ? ~std::uint64_t{0} : a[4];
    const std::uint64_t call[6] = {a[0], a[1], a[2], a[3], descriptor, a[5]};
    const long r = forward(c, __NR_mmap, call);
    // Elsewhere an address may have had code that shmdt(2) or another process took away.
    if (!is_error(r) && (executable || !(a[3] & MAP_FIXED)))
        set_executable(static_cast<std::uint64_t>(r), a[1], executable);
    return r;
}

long munmap(context& c, const std::uint64_t* a) {
    set_executable(a[0], a[1], false);
    return forward(c, __NR_munmap, a);
}

long mprotect(context& c, const std::uint64_t* a) {
    return change_protection(c, __NR_mprotect, a);
}

long pkey_mprotect(context& c, const std::uint64_t* a) {
    return change_protection(c, __NR_pkey_mprotect, a);
}

/// Code that has moved becomes executable where it is when it is used.
long mremap(context& c, const std::uint64_t* a) {
    set_executable(a[0], a[1], false);
    if (a[3] & MREMAP_FIXED) set_executable(a[4], a[2], false);
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
    if (base::raw_syscall(__NR_shmctl, static_cast<long>(a[0]), IPC_STAT,
                          base::as_long(&segment)) == 0)
        set_executable(static_cast<std::uint64_t>(r), segment.size, a[2] & SHM_EXEC);
    return r;
}

/// Linux would make everything resident that libxos keeps in reserve, many gigabytes.
long mlockall(context& c, const std::uint64_t* a) {
    constexpr std::uint64_t which = MCL_CURRENT | MCL_FUTURE;
    const bool valid = (a[0] & which) && !(a[0] & ~(which | MCL_ONFAULT));
    const std::uint64_t call[6] = {valid ? a[0] | MCL_ONFAULT : a[0]};
    return forward(c, __NR_mlockall, call);
}

}  // namespace xos::syscall
