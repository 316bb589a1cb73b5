// The time stamp counter, as this harness reads it.
#pragma once

#include <cstdint>
#include <ctime>

namespace xos::bench {

/// Inside and outside: libxos gives the guest the host's counter, without an offset.
/// The first LFENCE waits for what is measured, the second keeps what follows from starting early
/// (Intel SDM vol. 2B, RDTSC).
inline std::uint64_t ticks() {
    std::uint32_t low, high;
    asm volatile("lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
    return std::uint64_t{high} << 32 | low;
}

/// Measured against CLOCK_MONOTONIC for 20 ms. Meaningless where the counter counts instructions.
inline double ticks_per_nanosecond() {
    const auto now = [] {
        timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
    };
    const std::int64_t time = now();
    const std::uint64_t start = ticks();
    std::int64_t passed;
    do passed = now() - time;
    while (passed < 20'000'000);
    return static_cast<double>(ticks() - start) / static_cast<double>(passed);
}

}  // namespace xos::bench
