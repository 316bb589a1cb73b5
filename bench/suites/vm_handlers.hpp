#pragma once

#include <csignal>
#include <xos/trap.hpp>

namespace xos::bench {

/// Writes a byte by an instruction of this length, which a handler may skip.
inline constexpr int write_length = 2;
inline void write_byte(std::uint64_t at) {
    asm volatile("movb %%al, (%0)" : : "D"(at), "a"(1) : "memory");
}

/// Goes on behind the write.
verdict skip_write(trap_frame& frame, void*);
/// Makes the page writable.
verdict unprotect_page(trap_frame& frame, void*);
/// Makes the page writable, with a copy of what is there.
verdict copy_page(trap_frame& frame, void*);

/// The first two, by signal.
void skip_write_by_signal(int, siginfo_t*, void* context);
void unprotect_by_signal(int, siginfo_t* info, void*);

}  // namespace xos::bench
