// Descriptor tables (Intel SDM vol. 3, 3.4.5 segment descriptors, 6.14 64-bit IDT, 7.7 64-bit TSS).
#pragma once

#include <cstddef>
#include <cstdint>

namespace xos::arch {

// Selectors that an application can see are Linux's: code 0x33, data 0x2b. SYSCALL loads CS =
// kernel_code, SS = kernel_code + 8; SYSRET loads SS = base + 8, CS = base + 16, so base 0x20 gives
// 0x2b and 0x33.
namespace selector {
inline constexpr std::uint16_t kernel_code = 0x10, kernel_data = 0x18, sysret_base = 0x20,
                               user_data = 0x28 | 3, user_code = 0x30 | 3, task_state = 0x40,
                               processor_number = 0x78 | 3;
}

struct [[gnu::packed]] task_state_segment {
    std::uint32_t reserved0;
    std::uint64_t rsp[3];
    std::uint64_t reserved1;
    std::uint64_t ist[7];
    std::uint64_t reserved2;
    std::uint16_t reserved3;
    std::uint16_t io_bitmap_offset;
    /// One bit for each port; 1 means #GP at CPL 3. The last byte is all ones and must be inside
    /// the limit.
    std::uint8_t io_bitmap[32 + 1];
};
static_assert(offsetof(task_state_segment, io_bitmap) == 104);

struct descriptor_tables {
    std::uint64_t gdt[16];
    task_state_segment tss;
};

inline constexpr std::uint64_t code64(unsigned privilege) {
    return 0x00af9b000000ffff | std::uint64_t{privilege} << 45;
}
inline constexpr std::uint64_t data64(unsigned privilege) {
    return 0x00cf93000000ffff | std::uint64_t{privilege} << 45;
}

/// A CPL 3 data segment that serves only to carry its limit, in bytes.
inline constexpr std::uint64_t data_limit(std::uint64_t limit) {
    return 0x0040f50000000000 | (limit & 0xffff) | (limit >> 16 & 0xf) << 48;
}

/// Fills the tables in place; `tss_address` is the guest address of `t.tss`. Ports [first, first +
/// 16) stay open to CPL 3; `first` is a multiple of 8. A 32-bit OUT also needs the three ports
/// after its own.
inline void fill(descriptor_tables& t, std::uint64_t tss_address, unsigned first_open_port) {
    for (auto& d : t.gdt) d = 0;
    t.gdt[selector::kernel_code / 8] = code64(0);
    t.gdt[selector::kernel_data / 8] = data64(0);
    t.gdt[selector::user_data / 8] = data64(3);
    t.gdt[selector::user_code / 8] = code64(3);
    t.gdt[selector::processor_number / 8] = data_limit(0);
    constexpr std::uint64_t limit = sizeof(task_state_segment) - 1, busy_tss = 0x8b;
    t.gdt[selector::task_state / 8] =
        limit | (tss_address & 0xffffff) << 16 | busy_tss << 40 | (tss_address >> 24 & 0xff) << 56;
    t.gdt[selector::task_state / 8 + 1] = tss_address >> 32;
    t.tss.io_bitmap_offset = offsetof(task_state_segment, io_bitmap);
    for (auto& byte : t.tss.io_bitmap) byte = 0xff;
    t.tss.io_bitmap[first_open_port / 8] = t.tss.io_bitmap[first_open_port / 8 + 1] = 0;
}

struct idt_gate {
    std::uint64_t low = 0, high = 0;
};

/// An interrupt gate to kernel code. `privilege` is the least privileged ring that may use it by
/// INT n.
inline constexpr idt_gate gate(std::uint64_t handler, unsigned ist, unsigned privilege) {
    return {(handler & 0xffff) | std::uint64_t{selector::kernel_code} << 16 |
                std::uint64_t{ist} << 32 | std::uint64_t{0x8e} << 40 |
                std::uint64_t{privilege} << 45 | (handler >> 16 & 0xffff) << 48,
            handler >> 32};
}

}  // namespace xos::arch
