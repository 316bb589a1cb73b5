// The application's descriptors and libxos's are in one table: its calls pass ours by.
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using cell::context;
using cell::the_cell;

long close(context& c, const std::uint64_t* a) {
    if (the_cell.descriptors.owns(static_cast<std::uint32_t>(a[0]))) return error_badf;
    return forward(c, __NR_close, a);
}

long dup2(context& c, const std::uint64_t* a) {
    if (the_cell.descriptors.owns(static_cast<std::uint32_t>(a[1]))) return error_badf;
    return forward(c, __NR_dup2, a);
}

long dup3(context& c, const std::uint64_t* a) {
    if (the_cell.descriptors.owns(static_cast<std::uint32_t>(a[1]))) return error_badf;
    return forward(c, __NR_dup3, a);
}

long close_range(context& c, const std::uint64_t* a) {
    const std::uint64_t first = static_cast<std::uint32_t>(a[0]),
                        last = static_cast<std::uint32_t>(a[1]);
    constexpr std::uint64_t unshare = 2;
    if (first > last) return error_inval;
    constexpr std::uint64_t clone_files = 0x400, known = 6;
    if (a[2] & ~known) return error_inval;
    if (a[2] & unshare) {
        if (long r = base::raw_syscall(__NR_unshare, clone_files)) return r;
    }
    const std::uint64_t flags = a[2] & ~unshare;
    std::uint64_t at = first;  // around each of ours
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

}  // namespace xos::syscall
