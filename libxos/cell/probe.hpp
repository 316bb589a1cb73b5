// Finds out whether the processor executes ring 0 or a software KVM interprets it.
#pragma once

#include "libxos/base/outcome.hpp"
#include "libxos/kvm/vcpu.hpp"

namespace xos::cell {

struct ring0_cost {
    bool interpreted = false;
    std::uint64_t picoseconds = 0;  ///< of one instruction
};

/// A processor takes well under a nanosecond, an emulated one a few, an interpreter some hundred.
inline constexpr std::uint64_t interpreted_above_picoseconds = 200'000;

/// Runs a loop at CPL 0 on a vCPU that is not in use yet.
base::outcome measure_ring0(kvm::vcpu& cpu, const kvm::capabilities& caps, gpa root,
                            ring0_cost& cost);

}  // namespace xos::cell
