// System calls for code that may not touch libc: no errno, no TLS, no cancellation points.
#pragma once

#include <asm/unistd.h>

#include <cstdint>

namespace xos::base {

/// Returns the kernel's value: -errno on failure.
inline long raw_syscall(long number, long a = 0, long b = 0, long c = 0, long d = 0, long e = 0,
                        long f = 0) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    asm volatile("syscall"
                 : "=a"(result)
                 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}

template <class T>
long as_long(T* pointer) {
    return reinterpret_cast<long>(pointer);
}

inline bool is_error(long result) {
    return static_cast<unsigned long>(result) > -4096UL;
}

}  // namespace xos::base
