// How the memory of one context inside the guest is laid out, and which IST a vector uses.
#pragma once

#include "libxos/arch/guest_area.hpp"
#include "libxos/arch/segments.hpp"
#include "libxos/base/outcome.hpp"

namespace xos::cell {

struct context;

/// The first pages of a context's kernel part; in ring3 the user part starts with an area, too.
struct kernel_page {
    arch::guest_area area;
    alignas(64) arch::descriptor_tables tables;
};
inline constexpr std::uint64_t area_bytes = 2 * page_size;
static_assert(sizeof(kernel_page) <= area_bytes);

// Vectors share an IST only where neither can interrupt the other before its frame has moved to the
// trap stack. In pvm the IST also tells the landing code which vector it is.
enum ist : unsigned {
    ist_page_fault = 1,
    ist_protection = 2,
    ist_opcode = 3,
    ist_breakpoint = 4,
    ist_other = 5,
    ist_double_fault = 6,
    ist_count = 6,
};

inline constexpr unsigned ist_of(unsigned vector) {
    switch (vector) {
        case arch::vector_page_fault:
            return ist_page_fault;
        case arch::vector_general_protection:
            return ist_protection;
        case arch::vector_invalid_opcode:
            return ist_opcode;
        case arch::vector_breakpoint:
            return ist_breakpoint;
        case arch::vector_double_fault:
            return ist_double_fault;
        default:
            return ist_other;
    }
}

inline constexpr std::uint64_t ist_stack_size = 512, ist_landing_size = 128, ist_bytes = 4096,
                               trap_stack_size = 65536;
using arch::syscall_stack_size;
static_assert(ist_stack_size * ist_count <= ist_bytes);
static_assert(XOS_LANDING_ABOVE_TOP <= ist_landing_size && ist_landing_size % 16 == 0);

inline constexpr std::uint64_t kernel_bytes_per_context =
    area_bytes + ist_bytes + syscall_stack_size;
inline constexpr std::uint64_t user_bytes_per_context = area_bytes + trap_stack_size;

base::outcome reserve_contexts(unsigned count);
void release_contexts();
base::outcome make_context(unsigned id);
/// After fork: makes a vCPU of the new VM for a context whose memory exists.
base::outcome remake_context(context& c);

}  // namespace xos::cell
