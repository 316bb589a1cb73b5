// The application's descriptors and libxos's are in one table; the application's calls skip
// libxos's. A call that names one of them fails in forward(). Calls that would close one are on
// this list because the kernel module does not check: it leaves them to user space.
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using cell::context;
using cell::the_cell;

long close(context& c, const std::uint64_t* a) {
    return forward(c, __NR_close, a);
}

long dup2(context& c, const std::uint64_t* a) {
    return forward(c, __NR_dup2, a);
}

long dup3(context& c, const std::uint64_t* a) {
    return forward(c, __NR_dup3, a);
}

long close_range(context& c, const std::uint64_t* a) {
    const std::uint64_t first = static_cast<std::uint32_t>(a[0]),
                        last = static_cast<std::uint32_t>(a[1]);
    constexpr std::uint64_t unshare = 2;
    if (first > last) return -base::error::inval;
    constexpr std::uint64_t clone_files = 0x400, known = 6;
    if (a[2] & ~known) return -base::error::inval;
    if (a[2] & unshare) {
        if (long r = base::raw_syscall(__NR_unshare, clone_files)) return r;
    }
    const std::uint64_t flags = a[2] & ~unshare;
    std::uint64_t at = first;  // the ranges between libxos's own
    for (unsigned own = the_cell.descriptors.next(at);
         own <= last && own < kvm::descriptor_set::limit; own = the_cell.descriptors.next(at)) {
        if (own > at) {
            const std::uint64_t piece[6] = {at, own - 1, flags};
            if (long r = forward(c, __NR_close_range, piece)) return r;
        }
        at = std::uint64_t{own} + 1;
        if (at > last) return 0;
    }
    const std::uint64_t rest[6] = {at, last, flags};
    return forward(c, __NR_close_range, rest);
}

namespace {

struct listed {
    std::uint64_t inode, offset;
    std::uint16_t length;
};
constexpr std::size_t name_in_getdents64 = 19, name_in_getdents = 18;

/// Whether `fd` is open on the list of this process's own descriptors.
bool lists_own_descriptors(std::uint64_t fd) {
    constexpr long proc_magic = 0x9fa0;
    long status[32];
    if (base::raw_syscall(__NR_fstatfs, static_cast<long>(fd), base::as_long(status)) != 0 ||
        status[0] != proc_magic)
        return false;
    base::text<64> link;
    link << "/proc/self/fd/";
    link.dec(static_cast<std::uint32_t>(fd));
    char target[64];
    const long n = base::raw_syscall(__NR_readlink, base::as_long(link.terminated()),
                                     base::as_long(target), sizeof target - 1);
    if (n <= 0) return false;
    target[n] = '\0';
    base::text<64> own;
    own << "/proc/";
    own.dec(static_cast<std::uint64_t>(base::raw_syscall(__NR_getpid))) << "/";
    const char* rest = base::after(target, own.terminated());
    if (!rest) return false;
    // The path may also be "task/TID".
    const char* last = base::basename(rest);
    return base::same(last, "fd") || base::same(last, "fdinfo");
}

bool names_own(const char* name) {
    int number;
    return base::parse_number(name, number) &&
           the_cell.descriptors.owns(static_cast<std::uint64_t>(number));
}

/// Removes libxos's own descriptors from `n` bytes of entries; returns how many bytes are left, or
/// an error.
long without_own(std::uint64_t entries, std::size_t n, std::size_t name_offset) {
    std::size_t kept = 0;
    for (std::size_t at = 0; at < n;) {
        alignas(8) char entry[sizeof(listed) + 256 + 16] = {};
        auto& head = *reinterpret_cast<listed*>(entry);
        if (!copy_in(entry, entries + at, name_offset)) return -base::error::fault;
        const std::size_t length = head.length;
        if (length < name_offset || length > sizeof entry - 1 || length > n - at)
            return static_cast<long>(n);
        if (!copy_in(entry, entries + at, length)) return -base::error::fault;
        if (!names_own(entry + name_offset)) {
            if (kept != at && !copy_out(entries + kept, entry, length)) return -base::error::fault;
            kept += length;
        }
        at += length;
    }
    return static_cast<long>(kept);
}

long list(context& c, std::uint64_t number, const std::uint64_t* a, std::size_t name_offset) {
    for (;;) {
        const long n = forward(c, number, a);
        if (n <= 0 || !lists_own_descriptors(a[0])) return n;
        const long left = without_own(a[1], static_cast<std::size_t>(n), name_offset);
        // An empty rest is not the end of the directory.
        if (left != 0) return left;
    }
}

}  // namespace

long getdents(context& c, const std::uint64_t* a) {
    return list(c, __NR_getdents, a, name_in_getdents);
}

long getdents64(context& c, const std::uint64_t* a) {
    return list(c, __NR_getdents64, a, name_in_getdents64);
}

}  // namespace xos::syscall
