// The part of the KVM API that libxos uses, with its own definitions of the flexible-array structs:
// Debian 12's <linux/kvm.h> gives them the wrong size in C++ (an empty struct is one byte there),
// and the size is part of the ioctl number.
#pragma once

#include <linux/kvm.h>

#include <cstdint>

namespace xos::kvm {

struct cpuid_list {
    static constexpr std::uint32_t capacity = 256;
    std::uint32_t count = capacity;
    std::uint32_t padding = 0;
    kvm_cpuid_entry2 entries[capacity] = {};
};

struct one_msr {
    std::uint32_t count = 1, padding = 0;
    kvm_msr_entry entry = {};
};

/// KVM_GET_XSAVE's area; KVM_GET_XSAVE2 fills as much as KVM_CAP_XSAVE2 says.
struct alignas(64) xsave_area {
    static constexpr unsigned capacity = 4096;
    std::uint8_t bytes[capacity];
};

constexpr unsigned long request(unsigned direction, unsigned number, unsigned long size) {
    return static_cast<unsigned long>(direction) << 30 | size << 16 | KVMIO << 8 | number;
}
inline constexpr unsigned to_kernel = 1, from_kernel = 2;
inline constexpr unsigned long get_supported_cpuid = request(to_kernel | from_kernel, 0x05, 8);
inline constexpr unsigned long set_cpuid = request(to_kernel, 0x90, 8);
inline constexpr unsigned long get_msrs = request(to_kernel | from_kernel, 0x88, 8);
inline constexpr unsigned long set_msrs = request(to_kernel, 0x89, 8);
inline constexpr unsigned long get_xsave = request(from_kernel, 0xa4, 4096);
inline constexpr unsigned long set_xsave = request(to_kernel, 0xa5, 4096);
inline constexpr unsigned long get_stats_fd = request(0, 0xce, 0);

static_assert(get_supported_cpuid == 0xc008ae05);
static_assert(set_cpuid == 0x4008ae90);
static_assert(set_msrs == 0x4008ae89);
static_assert(get_xsave == 0x9000aea4 && set_xsave == 0x5000aea5);
static_assert(sizeof(kvm_cpuid_entry2) == 40 && sizeof(kvm_msr_entry) == 16);
static_assert(KVM_GET_REGS == request(from_kernel, 0x81, sizeof(kvm_regs)));
static_assert(KVM_GET_SREGS == request(from_kernel, 0x83, sizeof(kvm_sregs)));

}  // namespace xos::kvm
