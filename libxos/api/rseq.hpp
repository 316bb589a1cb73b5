// Restartable sequences: not inside. See syscall/process_calls_host.cpp for why.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libxos/arch/cpu.hpp"
#include "libxos/base/raw_syscall.hpp"

extern "C" {
// The C library's, since glibc 2.35: where the area of each thread is that it has registered.
[[gnu::weak]] extern const std::ptrdiff_t __rseq_offset;
[[gnu::weak]] extern const unsigned __rseq_size;
}

namespace xos::api {

/// Takes back what the C library has registered for the calling thread. Linux then marks the area
/// as not registered, so that everybody who looks at it uses something else.
inline void give_up_rseq() {
    if (!&__rseq_size || __rseq_size == 0) return;
    constexpr long unregister = 1, signature = 0x53053053;
    // __rseq_size says what is in use; the area is a multiple of 32 bytes (glibc, sysdeps/nptl).
    constexpr unsigned unit = 32;
    const long size = (__rseq_size + unit - 1) / unit * unit;
    const auto area = static_cast<long>(arch::read_fs_base()) + __rseq_offset;
    base::raw_syscall(__NR_rseq, area, size, unregister, signature);
}

}  // namespace xos::api
