// Turns restartable sequences off. syscall/process_calls_host.cpp says why.
#pragma once

#include <elf.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#include "libxos/arch/cpu.hpp"
#include "libxos/base/raw_syscall.hpp"

extern "C" {
// Of the C library since glibc 2.35: where each thread's registered area is.
[[gnu::weak]] extern const std::ptrdiff_t __rseq_offset;
[[gnu::weak]] extern const unsigned __rseq_size;
}

namespace xos::api {

/// Makes the C library say what it says on a kernel without restartable sequences. Its variable is
/// usually read-only once the program has been linked.
inline void deny_rseq() {
    const unsigned none = 0;
    struct {
        const void* base;
        std::size_t length;
    } const ours{&none, sizeof none}, theirs{&__rseq_size, sizeof none};
    const auto write = [&] {
        return base::raw_syscall(__NR_process_vm_writev, base::raw_syscall(__NR_getpid),
                                 base::as_long(&ours), 1, base::as_long(&theirs), 1, 0);
    };
    constexpr long no_access = -14, page = 4096;
    if (write() != no_access) return;
    const long begin = base::as_long(&__rseq_size) & -page;
    if (base::raw_syscall(__NR_mprotect, begin, page, PROT_READ | PROT_WRITE) != 0) return;
    write();
    base::raw_syscall(__NR_mprotect, begin, page, PROT_READ);
}

/// Unregisters what the C library has registered for the calling thread. Linux then marks the area
/// as unregistered, but code that loops until a sequence succeeds looks only at the size.
inline void give_up_rseq() {
    if (!&__rseq_size) return;
    // After the first thread the size is already zero.
    static unsigned size = 0;
    if (const unsigned present = __rseq_size) {
        __atomic_store_n(&size, present, __ATOMIC_RELAXED);
        deny_rseq();
    }
    const unsigned in_use = __atomic_load_n(&size, __ATOMIC_RELAXED);
    if (in_use == 0) return;
    constexpr long unregister = 1, signature = 0x53053053;
    // The size is the used part; the registered area is a multiple of 32 bytes (glibc,
    // sysdeps/nptl).
    constexpr unsigned unit = 32;
    const long registered = (in_use + unit - 1) / unit * unit;
    const auto area = static_cast<long>(arch::read_fs_base()) + __rseq_offset;
    base::raw_syscall(__NR_rseq, area, registered, unregister, signature);
}

/// Hides from a program that starts what the kernel tells it about restartable sequences.
inline void hide_rseq(Elf64_auxv_t* auxiliary) {
    constexpr std::uint64_t feature_size = 27, alignment = 28;
    for (Elf64_auxv_t* a = auxiliary; a->a_type != AT_NULL; a++) {
        if (a->a_type == feature_size || a->a_type == alignment) a->a_type = AT_IGNORE;
    }
}

/// The auxiliary vector, which follows the environment that the kernel has put on the stack.
inline Elf64_auxv_t* auxiliary_behind(char** environment) {
    while (*environment) environment++;
    return reinterpret_cast<Elf64_auxv_t*>(environment + 1);
}

}  // namespace xos::api
