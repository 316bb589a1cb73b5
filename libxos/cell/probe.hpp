// Is ring 0 executed by the processor, or interpreted by a software KVM?
#pragma once

#include "libxos/base/outcome.hpp"
#include "libxos/kvm/vcpu.hpp"

namespace xos::cell {

struct ring0_cost {
    bool interpreted = false;
    std::uint64_t picoseconds = 0;  ///< of one instruction
};

/// A processor takes well under a nanosecond, an emulated one some; an interpreter some hundred.
inline constexpr std::uint64_t interpreted_above_picoseconds = 200'000;

/// Runs a loop at CPL 0 on a vCPU that has nothing else to do yet.
base::outcome measure_ring0(kvm::vcpu& cpu, const kvm::capabilities& caps, gpa root,
                            ring0_cost& cost);

}  // namespace xos::cell
