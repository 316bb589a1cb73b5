// A system call that does nothing or little: forwarded to Linux, and answered in the guest.
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <vector>
#include <xos/batch.hpp>
#include <xos/syscall.hpp>

#include "bench/harness.hpp"
#include "kmod/xos_uapi.h"
#include "libxos/cell/cell.hpp"

namespace xos::bench {

namespace {

void getppid_by_libc(std::uint64_t operations) {
    for (; operations; operations--) syscall(SYS_getppid);
}

/// Three instructions around each SYSCALL, so that the rest is the call.
template <int Number>
void make_tight(std::uint64_t operations) {
    asm volatile(
        "1: movl %1, %%eax\n"
        "   syscall\n"
        "   decq %0\n"
        "   jnz 1b"
        : "+r"(operations)
        : "i"(Number)
        : "rax", "rcx", "r11", "memory", "cc");
}

/// As many as there are, 32 a crossing. What is left of a vector is asked for again.
void getppid_by_vector(std::uint64_t operations) {
    constexpr unsigned length = 32;
    static xos_call calls[length];
    for (auto& c : calls) c.number = SYS_getppid;
    while (operations) {
        const std::uint64_t n = operations < length ? operations : length;
        for (std::uint64_t made = 0; made < n;) {
            const long more = syscall(XOS_NR_VECTOR, calls + made, n - made, 0ul);
            if (more < 0) throw std::system_error(errno, std::system_category(), "vector");
            made += static_cast<std::uint64_t>(more);
        }
        operations -= n;
    }
}

/// The same by the public interface, and every result is looked at.
void getppid_by_batch(std::uint64_t operations) {
    constexpr std::uint64_t length = 32;
    static batch calls;
    static std::vector<operation<long>> queued;
    while (operations) {
        const std::uint64_t n = operations < length ? operations : length;
        for (std::uint64_t i = 0; i < n; i++) queued.push_back(calls.call(SYS_getppid));
        calls.submit();
        for (const auto& o : queued)
            if (o.result().value() < 0) throw std::logic_error("getppid() failed");
        queued.clear();
        calls.clear();
        operations -= n;
    }
}

// Anonymous memory, which inside is the process arena's.
char* heap;
int zeros = -1;

void open_zeros() {
    heap = static_cast<char*>(
        mmap(nullptr, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    heap[0] = 1;
    zeros = open("/dev/zero", O_RDONLY | O_CLOEXEC);
}
void close_zeros() {
    close(zeros);
    munmap(heap, 65536);
}
void read_zeros(std::uint64_t operations) {
    for (; operations; operations--) syscall(SYS_read, zeros, heap, 64);
}

// Any port will do that libxos does not read the answer of.
constexpr unsigned port = XOS_PORT_NULL;

void connect_port(unsigned flags) {
    static int event = -1;
    host_call([flags] {
        if (event < 0) event = eventfd(0, EFD_CLOEXEC);
        kvm_ioeventfd e{};
        e.addr = port;
        e.len = 4;
        e.fd = event;
        e.flags = KVM_IOEVENTFD_FLAG_PIO | flags;
        if (ioctl(cell::the_cell.machine.fd(), KVM_IOEVENTFD, &e) != 0)
            throw std::system_error(errno, std::system_category(), "KVM_IOEVENTFD");
    });
}
void answer_port_in_kernel() {
    connect_port(0);
}
void answer_port_in_user_space() {
    connect_port(KVM_IOEVENTFD_FLAG_DEASSIGN);
}
void write_port(std::uint64_t operations) {
    for (; operations; operations--) {
        asm volatile("outl %%eax, %0" : : "i"(port), "a"(0) : "memory");
    }
}

[[gnu::target("general-regs-only")]] long constant(long, long, long, long, long, long) {
    return 1;
}

const registration forwarded({
    .suite = "syscall",
    .name = "getppid-exit",
    .note = "syscall(SYS_getppid), forwarded by an exit",
    .linux_way = side{.where = place::outside, .run = getppid_by_libc},
    .xos_way = {.where = place::inside, .run = getppid_by_libc},
    .way = transport::exit,
});

const registration by_module({
    .suite = "syscall",
    .name = "getppid-module",
    .note = "the same, made by the kernel module",
    .linux_way = side{.where = place::outside, .run = getppid_by_libc},
    .xos_way = {.where = place::inside, .run = getppid_by_libc},
    .way = transport::module,
});

const registration read_by_module({
    .suite = "syscall",
    .name = "read-64-module",
    .note = "read of 64 bytes of /dev/zero into anonymous memory, made by the kernel module",
    .linux_way = side{.where = place::outside,
                      .setup = open_zeros,
                      .run = read_zeros,
                      .teardown = close_zeros},
    .xos_way =
        {.where = place::inside, .setup = open_zeros, .run = read_zeros, .teardown = close_zeros},
    .way = transport::module,
});

const registration vector_by_exit({
    .suite = "syscall",
    .name = "vector-32-exit",
    .note = "a call of 32 made by one exit",
    .linux_way = side{.where = place::outside, .run = getppid_by_libc},
    .xos_way = {.where = place::inside, .run = getppid_by_vector},
    .counted_operations = 320,
    .way = transport::exit,
});

const registration vector_by_module({
    .suite = "syscall",
    .name = "vector-32-module",
    .note = "a call of 32 made by one doorbell of the module",
    .linux_way = side{.where = place::outside, .run = getppid_by_libc},
    .xos_way = {.where = place::inside, .run = getppid_by_vector},
    .counted_operations = 320,
    .way = transport::module,
});

const registration batch_by_exit({
    .suite = "syscall",
    .name = "batch-32-exit",
    .note = "a call of an xos::batch of 32, made by one exit; on Linux a plain call",
    .linux_way = side{.where = place::outside, .run = getppid_by_libc},
    .xos_way = {.where = place::inside, .run = getppid_by_batch},
    .counted_operations = 320,
    .way = transport::exit,
    .others = {{"batch outside", {.where = place::outside, .run = getppid_by_batch}}},
});

const registration batch_by_module({
    .suite = "syscall",
    .name = "batch-32-module",
    .note = "a call of an xos::batch of 32, made by one doorbell of the module",
    .linux_way = side{.where = place::outside, .run = getppid_by_libc},
    .xos_way = {.where = place::inside, .run = getppid_by_batch},
    .counted_operations = 320,
    .way = transport::module,
});

const registration kernel_floor({
    .suite = "syscall",
    .name = "null-doorbell",
    .note = "KVM's own part: a port that the kernel answers, by an ioeventfd",
    .linux_way = {},
    .xos_way = {.where = place::inside,
                .setup = answer_port_in_kernel,
                .run = write_port,
                .teardown = answer_port_in_user_space},
});

const registration local({
    .suite = "syscall",
    .name = "getppid-local",
    .note = "the bare instruction, answered in the guest",
    .linux_way = side{.where = place::outside, .run = make_tight<SYS_getppid>},
    .xos_way = {.where = place::inside,
                .setup = [] { answer_locally(SYS_getppid, constant); },
                .run = make_tight<SYS_getppid>,
                .teardown = [] { answer_locally(SYS_getppid, nullptr); }},
});

const registration known_id({
    .suite = "syscall",
    .name = "getpid",
    .note = "the same, by libxos: the answer lies ready",
    .linux_way = side{.where = place::outside, .run = make_tight<SYS_getpid>},
    .xos_way = {.where = place::inside, .run = make_tight<SYS_getpid>},
});

const registration known_user({
    .suite = "syscall",
    .name = "geteuid",
    .note = "the same, an answer that can change",
    .linux_way = side{.where = place::outside, .run = make_tight<SYS_geteuid>},
    .xos_way = {.where = place::inside, .run = make_tight<SYS_geteuid>},
});

}  // namespace

}  // namespace xos::bench
