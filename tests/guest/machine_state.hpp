// Every register that a fault, a system call or a signal must keep. Assembly loads and stores them,
// so that no compiler comes in between.
#pragma once

#include <cstdint>
#include <string>

namespace xos::test {

struct alignas(32) machine_state {
    // rax rbx rcx rdx rsi rdi rbp r8 ... r15
    std::uint64_t gpr[15];
    std::uint64_t flags;
    std::uint8_t ymm[16][32];
};

/// What happens between loading and storing.
enum class event : std::uint64_t {
    none,
    ud2,           ///< two bytes: a handler skips them
    store_to_rsi,  ///< one byte to (%rsi)
    load_ymm,      ///< 32 bytes from (%rsi) into ymm3, where the faulting instruction matters
    syscall,       ///< with these registers: rax, rdi, rsi, rdx, r10, r8, r9
    spin_on_rsi,   ///< until the byte at (%rsi) is not 0: for signals
};

/// A pattern in which no two registers are alike; flags that an application may have.
machine_state distinct_state();

/// Loads `in`, lets the event happen, returns what the registers are then.
machine_state registers_after(event what, const machine_state& in);

/// The names of what differs, "" if nothing does. Bits of `ignored` count from rax as in `gpr`; bit
/// 15 stands for the flags.
std::string difference(const machine_state& a, const machine_state& b, unsigned ignored = 0);

}  // namespace xos::test
