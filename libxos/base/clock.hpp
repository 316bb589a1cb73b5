// Time for code that cannot call the vDSO.
#pragma once

#include <cstdint>

#include "libxos/base/raw_syscall.hpp"

namespace xos::base {

inline std::uint64_t monotonic_nanoseconds() {
    constexpr long clock_monotonic = 1;
    struct {
        std::uint64_t seconds, nanoseconds;
    } now{};
    raw_syscall(__NR_clock_gettime, clock_monotonic, as_long(&now));
    return now.seconds * 1'000'000'000 + now.nanoseconds;
}

}  // namespace xos::base
