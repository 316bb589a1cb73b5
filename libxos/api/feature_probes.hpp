// The parts of probe_features(), grouped by what they ask.
#pragma once

#include <xos/features.hpp>

namespace xos::api {

/// /dev/kvm: asks every question, while start() stops at the first missing feature.
features::kvm_device probe_kvm_device();

/// The kernel module, if /dev/xos is there.
features::call_module probe_module();

/// Tries out a cell in a child process.
features::cell_trial try_cell();

/// Processor, modules, memory, kernel: from /proc, /sys and harmless system calls.
void probe_system(features& f);

}  // namespace xos::api
