// The x86-64 register state that the stubs, KVM and the signal code exchange.
#pragma once

#include <cstddef>
#include <cstdint>
#include <xos/trap.hpp>

namespace xos::arch {

/// The sixteen general registers, RIP and RFLAGS. One struct, copied whole.
struct general_registers {
    std::uint64_t r15 = 0, r14 = 0, r13 = 0, r12 = 0, r11 = 0, r10 = 0, r9 = 0, r8 = 0;
    std::uint64_t rbp = 0, rdi = 0, rsi = 0, rdx = 0, rcx = 0, rbx = 0, rax = 0;
    std::uint64_t rip = 0, rsp = 0, rflags = 0;
};

/// The frame that an exception leaves on the trap stack. entry_guest.S builds it from the high end
/// down.
using xos::trap_frame;

// guest_layout.h: XOS_FRAME_*
static_assert(offsetof(trap_frame, rax) == 112);
static_assert(offsetof(trap_frame, vector) == 120);
static_assert(offsetof(trap_frame, rip) == 144);
static_assert(sizeof(trap_frame) == 184);

inline general_registers registers_of(const trap_frame& f) {
    return {f.r15, f.r14, f.r13, f.r12, f.r11, f.r10, f.r9,  f.r8,  f.rbp,
            f.rdi, f.rsi, f.rdx, f.rcx, f.rbx, f.rax, f.rip, f.rsp, f.rflags};
}

namespace rflags {
inline constexpr std::uint64_t fixed = 1u << 1, trap = 1u << 8, interrupt = 1u << 9,
                               direction = 1u << 10, resume = 1u << 16, alignment = 1u << 18;
/// The bits that Linux takes over from a signal frame (arch/x86/kernel/signal.c, FIX_EFLAGS).
inline constexpr std::uint64_t user = 0x50dd5;
}  // namespace rflags

namespace cr0 {
inline constexpr std::uint64_t long_mode = 0x80050033;  // PG AM WP NE ET MP PE
}
namespace cr4 {
inline constexpr std::uint64_t pae = 1u << 5, pge = 1u << 7, osfxsr = 1u << 9,
                               osxmmexcpt = 1u << 10, fsgsbase = 1u << 16, pcide = 1u << 17,
                               osxsave = 1u << 18;
}
namespace efer {
inline constexpr std::uint64_t sce = 1u << 0, lme = 1u << 8, lma = 1u << 10, nxe = 1u << 11;
}
namespace msr {
inline constexpr std::uint32_t tsc = 0x10, star = 0xc0000081, lstar = 0xc0000082,
                               syscall_mask = 0xc0000084, kernel_gs_base = 0xc0000102,
                               tsc_aux = 0xc0000103;
}

/// Exception vectors (Intel SDM vol. 3, table 6-1).
enum vector : std::uint8_t {
    vector_divide = 0,
    vector_debug = 1,
    vector_nmi = 2,
    vector_breakpoint = 3,
    vector_overflow = 4,
    vector_invalid_opcode = 6,
    vector_double_fault = 8,
    vector_general_protection = 13,
    vector_page_fault = 14,
};

namespace page_fault {
inline constexpr std::uint64_t present = 1u << 0, write = 1u << 1, user = 1u << 2,
                               reserved = 1u << 3, fetch = 1u << 4;
}

}  // namespace xos::arch
