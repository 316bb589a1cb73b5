// Services that ordinary code calls as functions, in the flat modes. No signal may be delivered
// until they are done.
#pragma once

#include <xos/vm.hpp>

#include "libxos/arch/guest_area.hpp"

namespace xos::vm {

[[gnu::always_inline]] inline std::uint64_t become_kernel(arch::guest_area& area) {
    const std::uint64_t outer = area.in_kernel;
    area.in_kernel = 1;
    return outer;
}

[[gnu::always_inline]] inline long end_kernel(arch::guest_area& area, std::uint64_t outer,
                                              map_result result) {
    area.in_kernel = outer;
    if (!outer && __atomic_load_n(&area.pending, __ATOMIC_RELAXED)) [[unlikely]]
        arch::poll_guest();
    return static_cast<long>(result);
}

}  // namespace xos::vm
