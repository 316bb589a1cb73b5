#include "libxos/arch/cpu.hpp"
#include "libxos/arch/guest_layout.h"
#include "libxos/base/clock.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/cell/probe.hpp"
#include "libxos/cell/stubs.hpp"

namespace xos::cell {

using base::monotonic_nanoseconds;
using base::outcome;
using base::step;

namespace {

outcome run_loop_once(kvm::vcpu& cpu, std::uint64_t count, std::uint64_t& nanoseconds) {
    arch::general_registers r;
    r.rip = address_of(xos_probe_loop);
    r.rcx = count;
    cpu.write_registers(r);
    const std::uint64_t begin = monotonic_nanoseconds();
    long result;
    do {
        result = cpu.run();
    } while (result == -base::error::intr);
    nanoseconds = monotonic_nanoseconds() - begin;
    const kvm_run& page = cpu.run_page();
    if (result < 0) return {step::probe_ring0, static_cast<int>(-result)};
    if (page.exit_reason != KVM_EXIT_IO || page.io.port != XOS_PORT_PROBE) {
        return {step::probe_ring0, base::error::io};
    }
    return base::success;
}

/// Measures the time per instruction of `iterations` of the loop beyond the first, from the best of
/// `tries`.
struct comparison {
    std::uint64_t iterations;
    unsigned tries;
};

/// Disturbances only make a run longer, so one quick pair is believed at once.
outcome compare(kvm::vcpu& cpu, const comparison& c, std::uint64_t& picoseconds) {
    std::uint64_t empty = ~std::uint64_t{0}, loop = empty;
    picoseconds = 0;
    for (unsigned i = 0; i < c.tries; i++) {
        std::uint64_t one_empty = 0, one_loop = 0;
        if (auto failed = run_loop_once(cpu, 1, one_empty); !failed.ok()) return failed;
        if (auto failed = run_loop_once(cpu, c.iterations, one_loop); !failed.ok()) return failed;
        if (one_empty < empty) empty = one_empty;
        if (one_loop < loop) loop = one_loop;
        picoseconds = loop > empty ? (loop - empty) * 1000 / (2 * (c.iterations - 1)) : 0;
        if (picoseconds <= interpreted_above_picoseconds) break;
    }
    return base::success;
}

}  // namespace

outcome measure_ring0(kvm::vcpu& cpu, const kvm::capabilities& caps, gpa root, ring0_cost& cost) {
    if (auto failed = cpu.prepare(caps, {.cr3 = root.value}); !failed.ok()) return failed;
    std::uint64_t cold;  // a first run, which touches everything
    if (auto failed = run_loop_once(cpu, 1, cold); !failed.ok()) return failed;
    if (auto failed = compare(cpu, {33, 3}, cost.picoseconds); !failed.ok()) return failed;
    cost.interpreted = !arch::has_hardware_virtualization();
    if (cost.interpreted || cost.picoseconds <= interpreted_above_picoseconds) {
        return base::success;
    }
    // Either a software KVM on a processor with virtualization, or a busy machine, perhaps an
    // emulated one. An interpreter takes most of a millisecond for each run of so many
    // instructions.
    if (auto failed = compare(cpu, {2049, 16}, cost.picoseconds); !failed.ok()) return failed;
    cost.interpreted = cost.picoseconds > interpreted_above_picoseconds;
    return base::success;
}

}  // namespace xos::cell
