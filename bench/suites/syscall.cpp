// A system call that does nothing: forwarded to Linux, and answered in the guest.
#include <sys/syscall.h>
#include <unistd.h>

#include <xos/syscall.hpp>

#include "bench/harness.hpp"

namespace xos::bench {

namespace {

void getppid_by_libc(std::uint64_t operations) {
    for (; operations; operations--) syscall(SYS_getppid);
}

/// Three instructions around each SYSCALL, so that the rest is the call.
void getppid_tight(std::uint64_t operations) {
    asm volatile(
        "1: movl %1, %%eax\n"
        "   syscall\n"
        "   decq %0\n"
        "   jnz 1b"
        : "+r"(operations)
        : "i"(SYS_getppid)
        : "rax", "rcx", "r11", "memory", "cc");
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
});

const registration local({
    .suite = "syscall",
    .name = "getppid-local",
    .note = "the bare instruction, answered in the guest",
    .linux_way = side{.where = place::outside, .run = getppid_tight},
    .xos_way = {.where = place::inside,
                .setup = [] { answer_locally(SYS_getppid, constant); },
                .run = getppid_tight,
                .teardown = [] { answer_locally(SYS_getppid, nullptr); }},
});

}  // namespace

}  // namespace xos::bench
