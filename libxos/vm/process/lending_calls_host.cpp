// System calls by which Linux comes to hold pages of the process. Linux goes on using such pages
// after the program has unmapped them, or learns about them by a descriptor instead of an address.
//
// Memory that is lent by an address becomes Linux's (linux_memory.hpp). If the pages that a call
// lends cannot be known, all memory that the program gives back from then on first loses its
// frames.
#include <linux/mman.h>
#include <linux/userfaultfd.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/kernel_abi.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/vm/process/break.hpp"
#include "libxos/vm/process/linux_memory.hpp"

namespace xos::syscall {

using namespace vm;
using cell::context;
using cell::io_vector;

namespace {

/// The `type` of ioctl(2) requests that keep none of their caller's memory (Linux,
/// Documentation/userspace-api/ioctl/ioctl-number.rst).
constexpr unsigned char harmless_requests[] = {
    'T',                   // terminals
    0x89,                  // sockets
    0x12,                  // block devices
    'f',  'v', 'X', 0x94,  // file systems
    'E',                   // input devices
    '$',                   // perf_event_open(2)
    '!',                   // seccomp's listener
    0xb7,                  // namespaces and pidfds
};

bool keeps_memory(std::uint64_t request) {
    const auto type = static_cast<unsigned char>(request >> 8);
    for (unsigned char harmless : harmless_requests) {
        if (type == harmless) return false;
    }
    return true;
}

/// Entrusts all buffers of an array to Linux.
void entrust_buffers(std::uint64_t array, std::uint64_t count) {
    constexpr std::uint64_t most = 1024;  // UIO_MAXIOV
    for (std::uint64_t i = 0; i < count && i < most; i++) {
        io_vector buffer;
        if (!copy_in(&buffer, array + i * sizeof buffer, sizeof buffer)) return;
        const std::uint64_t begin = buffer.base & ~(page_size - 1);
        entrust(gva{begin}, buffer.base + buffer.length - begin);
        leave_break_to_linux_from_host(buffer.base, buffer.length);
    }
}

}  // namespace

long vmsplice(context& c, const std::uint64_t* a) {
    entrust_buffers(a[1], a[2]);
    return forward(c, __NR_vmsplice, a);
}

/// The kernel may own the ring's buffers until completion; they are named in shared memory.
long io_uring_setup(context& c, const std::uint64_t* a) {
    expect_lent_pages();
    return forward(c, __NR_io_uring_setup, a);
}

/// The ring may have been set up by another process.
long io_uring_enter(context& c, const std::uint64_t* a) {
    expect_lent_pages();
    return forward(c, __NR_io_uring_enter, a);
}

long io_uring_register(context& c, const std::uint64_t* a) {
    constexpr std::uint32_t buffers = 0, buffers_with_tags = 15, update_of_buffers = 16;
    expect_lent_pages();
    const auto what = static_cast<std::uint32_t>(a[1]);
    if (what == buffers) entrust_buffers(a[2], a[3]);
    if (what == buffers_with_tags || what == update_of_buffers) {
        struct {  // io_uring_rsrc_register and io_uring_rsrc_update2 agree in these fields
            std::uint32_t count_or_offset, flags;
            std::uint64_t first, data, tags_or_count;
        } wanted;
        if (copy_in(&wanted, a[2], sizeof wanted)) {
            const bool update = what == update_of_buffers;
            const std::uint64_t at = update ? wanted.first : wanted.data;
            entrust_buffers(at, update ? static_cast<std::uint32_t>(wanted.tags_or_count)
                                       : wanted.count_or_offset);
        }
    }
    return forward(c, __NR_io_uring_register, a);
}

long io_setup(context& c, const std::uint64_t* a) {
    expect_lent_pages();
    return forward(c, __NR_io_setup, a);
}

/// Needed for SO_ZEROCOPY: without it MSG_ZEROCOPY lends nothing.
long setsockopt(context& c, const std::uint64_t* a) {
    constexpr std::uint32_t socket_level = 1, zero_copy = 60;
    if (static_cast<std::uint32_t>(a[1]) == socket_level &&
        static_cast<std::uint32_t>(a[2]) == zero_copy)
        expect_lent_pages();
    return forward(c, __NR_setsockopt, a);
}

/// A userfaultfd reports faults of memory that libxos cannot foresee, and its events wait for a
/// reader. So the memory must be entirely Linux's.
long userfaultfd(context& c, const std::uint64_t* a) {
    retire_arena(zero_pages::go);
    return forward(c, __NR_userfaultfd, a);
}

long ioctl(context& c, const std::uint64_t* a) {
    constexpr unsigned char of_userfaultfd = UFFDIO;
    const auto type = static_cast<unsigned char>(a[1] >> 8);
    if (type == of_userfaultfd)  // made by /dev/userfaultfd, or handed over by another process
        retire_arena(zero_pages::go);
    else if (keeps_memory(a[1]))
        expect_lent_pages();
    return forward(c, __NR_ioctl, a);
}

/// The process may be this one; then it acts like madvise.
long process_madvise(context& c, const std::uint64_t* a) {
    entrust_buffers(a[1], a[2]);
    return forward(c, __NR_process_madvise, a);
}

}  // namespace xos::syscall
