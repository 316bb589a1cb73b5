// Calls of the kernel-side services from application code.
#pragma once

#include <cstddef>
#include <xos/types.hpp>

#include "libxos/arch/guest_layout.h"

namespace xos::api {

[[gnu::noinline]] inline long gateway_call(unsigned service, long a, long b = 0, long c = 0,
                                           long d = 0) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = 0;
    register long r9 asm("r9") = 0;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(static_cast<long>(XOS_GATEWAY_BASE + service)), "D"(a), "S"(b), "d"(c),
                   "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

/// Makes every page present: the kernel side must not fault on what it is handed.
inline void touch(const volatile void* begin, std::size_t bytes) {
    const auto* at = static_cast<const volatile char*>(begin);
    for (std::size_t offset = 0; offset < bytes; offset += page_size) (void)at[offset];
    if (bytes) (void)at[bytes - 1];
}

}  // namespace xos::api
