#include <linux/time.h>

#include "libxos/arch/guest_layout.h"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/probe.hpp"
#include "libxos/cell/stubs.hpp"

namespace xos::cell {

using base::outcome;
using base::step;

namespace {

std::uint64_t monotonic_nanoseconds() {
    struct {
        std::int64_t seconds, nanoseconds;
    } now{};
    base::raw_syscall(__NR_clock_gettime, CLOCK_MONOTONIC, base::as_long(&now));
    return static_cast<std::uint64_t>(now.seconds * 1'000'000'000 + now.nanoseconds);
}

constexpr std::uint64_t iterations = 32, instructions = 2 * iterations;
constexpr int input_output_error = 5;

outcome run_loop_once(kvm::vcpu& cpu, std::uint64_t count, std::uint64_t& nanoseconds) {
    arch::general_registers r;
    r.rip = address_of(xos_probe_loop);
    r.rcx = count;
    cpu.write_registers(r);
    const std::uint64_t begin = monotonic_nanoseconds();
    long result;
    do {
        result = cpu.run();
    } while (result == -4);
    nanoseconds = monotonic_nanoseconds() - begin;
    const kvm_run& page = cpu.run_page();
    if (result < 0) return {step::probe_ring0, static_cast<int>(-result)};
    if (page.exit_reason != KVM_EXIT_IO || page.io.port != XOS_PORT_PROBE) {
        return {step::probe_ring0, input_output_error};
    }
    return base::success;
}

std::uint64_t per_instruction(std::uint64_t loop, std::uint64_t empty) {
    return loop > empty ? (loop - empty) * 1000 / instructions : 0;
}

}  // namespace

outcome measure_ring0(kvm::vcpu& cpu, const kvm::capabilities& caps, gpa root, ring0_cost& cost) {
    if (auto failed = cpu.prepare(caps, {.cr3 = root.value}); !failed.ok()) return failed;
    // Whatever disturbs a run makes it longer: one quick run says that ring 0 is native, and only
    // several slow ones that it is not. The first pays for the first touch of everything.
    constexpr unsigned tries = 5;
    std::uint64_t cold = 0, empty = ~std::uint64_t{0}, loop = empty;
    if (auto failed = run_loop_once(cpu, 1, cold); !failed.ok()) return failed;
    for (unsigned i = 0; i < tries; i++) {
        std::uint64_t one_empty = 0, one_loop = 0;
        if (auto failed = run_loop_once(cpu, 1, one_empty); !failed.ok()) return failed;
        if (auto failed = run_loop_once(cpu, iterations, one_loop); !failed.ok()) return failed;
        if (one_empty < empty) empty = one_empty;
        if (one_loop < loop) loop = one_loop;
        if (i > 0 && per_instruction(loop, empty) <= interpreted_above_picoseconds) break;
    }
    cost.picoseconds = per_instruction(loop, empty);
    // An emulated machine is so slow that its noise alone could look like an interpreter's cost,
    // but not next to what an exit costs there.
    cost.interpreted = cost.picoseconds > interpreted_above_picoseconds && loop > empty + empty / 2;
    return base::success;
}

}  // namespace xos::cell
