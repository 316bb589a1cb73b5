// One round of one side.
#pragma once

#include <cstdint>

#include "bench/clock.hpp"
#include "bench/harness.hpp"

namespace xos::bench {

struct round_result {
    std::uint64_t ticks;  ///< of all operations
    std::uint64_t exits;
    std::uint64_t cpu;  ///< nanoseconds of processor time, of this process and its ended children
};

/// The ticks of so many operations, here.
inline std::uint64_t measured(const side& s, std::uint64_t operations) {
    if (s.measure) return s.measure(operations);
    const std::uint64_t start = ticks();
    s.run(operations);
    return ticks() - start;
}

/// Where the side says, for as many operations; before them some that do not count.
round_result run_round(const side& s, std::uint64_t operations);

/// Operations that do not count before a round of so many.
std::uint64_t warm_up_of(std::uint64_t operations);

}  // namespace xos::bench
