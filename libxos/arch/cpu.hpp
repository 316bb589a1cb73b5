// Reads CPUID, the TSC, segment bases and the extended state (Intel SDM vol. 1, chapter 13).
#pragma once

#include <cstdint>

namespace xos::arch {

struct cpuid_result {
    std::uint32_t eax, ebx, ecx, edx;
};

inline cpuid_result cpuid(std::uint32_t leaf, std::uint32_t subleaf = 0) {
    cpuid_result r;
    asm volatile("cpuid"
                 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
                 : "a"(leaf), "c"(subleaf));
    return r;
}

/// VMX (Intel SDM vol. 3, 24.6) or SVM (AMD APM vol. 2, 15.4). A KVM without either is a software
/// KVM.
inline bool has_hardware_virtualization() {
    constexpr std::uint32_t vmx = 1u << 5, svm = 1u << 2, extended = 0x8000'0001;
    if (cpuid(1).ecx & vmx) return true;
    return cpuid(0x8000'0000).eax >= extended && cpuid(extended).ecx & svm;
}

inline std::uint64_t read_xcr0() {
    std::uint32_t low, high;
    asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return std::uint64_t{high} << 32 | low;
}

/// Components that no vCPU gets: MPX is deprecated and KVM refuses it; AMX needs a permission that
/// the process may not have requested.
inline constexpr std::uint64_t xcr0_excluded = 3u << 3 | 3u << 17;

/// Size in bytes of a standard-format XSAVE area that holds exactly `components`.
inline std::uint32_t xsave_size(std::uint64_t components) {
    std::uint32_t size = 512 + 64;
    for (unsigned i = 2; i < 63; i++) {
        if (!(components >> i & 1)) continue;
        auto r = cpuid(0xd, i);
        if (r.ebx + r.eax > size) size = r.ebx + r.eax;
    }
    return size;
}

// Offsets inside the area.
inline constexpr unsigned xsave_mxcsr = 24, xsave_software = 464, xsave_header = 512;
inline constexpr std::uint32_t fpx_magic1 = 0x46505853, fpx_magic2 = 0x46505845;

inline std::uint64_t read_tsc() {
    std::uint32_t low, high;
    asm volatile("rdtsc" : "=a"(low), "=d"(high));
    return std::uint64_t{high} << 32 | low;
}

inline std::uint64_t read_fs_base() {
    std::uint64_t v;
    asm volatile("rdfsbase %0" : "=r"(v));
    return v;
}
inline void write_fs_base(std::uint64_t v) {
    asm volatile("wrfsbase %0" : : "r"(v) : "memory");
}
inline std::uint64_t read_gs_base() {
    std::uint64_t v;
    asm volatile("rdgsbase %0" : "=r"(v));
    return v;
}
inline void write_gs_base(std::uint64_t v) {
    asm volatile("wrgsbase %0" : : "r"(v) : "memory");
}

}  // namespace xos::arch
