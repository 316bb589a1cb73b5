// What the runtimes of the gcc and clang sanitizers (x86-64 Linux) demand of the process they run
// in.
//
// A runtime keeps shadow memory at addresses that are fixed when it is compiled, refuses to start
// where something lies there, and accepts the program's own memory in certain ranges only. Sources:
// compiler-rt (gcc's libsanitizer is a copy): asan_mapping.h, asan_allocator.h, msan.h
// (kMemoryLayout), tsan_platform.h (Mapping48AddressSpace), lsan_allocator.h.
#pragma once

#include <cstdint>

namespace xos::program {

struct address_range {
    std::uint64_t begin, end;

    constexpr bool holds(const address_range& other) const {
        return begin <= other.begin && other.end <= end;
    }
    constexpr bool touches(const address_range& other) const {
        return begin < other.end && other.begin < end;
    }
};

/// Addresses that every sanitizer accepts as the program's and that Linux never chooses by itself.
/// The addresses above belong to programs that may lie anywhere (ELF_ET_DYN_BASE, 0x555555554000
/// less an alignment of at most a gigabyte).
inline constexpr address_range free_of_sanitizers{0x5500'0000'0000, 0x5555'0000'0000};

namespace sanitizer_layout {

/// AddressSanitizer: the shadow, and the allocator's range before and since LLVM 17.
inline constexpr address_range address_taken[] = {{0x7fff'7000, 0x1000'7fff'8000},
                                                  {0x6000'0000'0000, 0x6400'0000'0000},
                                                  {0x5000'0000'0000, 0x5400'0000'0000}};
/// LeakSanitizer: the allocator's ranges.
inline constexpr address_range leak_taken[] = {{0x6000'0000'0000, 0x6400'0000'0000},
                                               {0x5000'0000'0000, 0x5400'0000'0000}};
inline constexpr address_range memory_application[] = {{0, 0x0100'0000'0000},
                                                       {0x5100'0000'0000, 0x6000'0000'0000},
                                                       {0x7400'0000'0000, 0x8000'0000'0000}};
/// ThreadSanitizer up to gcc 12 and clang 14.
inline constexpr address_range thread_application[] = {{0x1000, 0x0080'0000'0000},
                                                       {0x5500'0000'0000, 0x5680'0000'0000},
                                                       {0x7e80'0000'0000, 0x8000'0000'0000}};
/// ThreadSanitizer since LLVM 17.
inline constexpr address_range later_thread_application[] = {{0x1000, 0x0200'0000'0000},
                                                             {0x5500'0000'0000, 0x5a00'0000'0000},
                                                             {0x7a00'0000'0000, 0x8000'0000'0000}};

template <unsigned N>
consteval bool one_holds(const address_range (&ranges)[N]) {
    for (const address_range& range : ranges) {
        if (range.holds(free_of_sanitizers)) return true;
    }
    return false;
}

template <unsigned N>
consteval bool one_touches(const address_range (&ranges)[N]) {
    for (const address_range& range : ranges) {
        if (range.touches(free_of_sanitizers)) return true;
    }
    return false;
}

static_assert(!one_touches(address_taken) && !one_touches(leak_taken));
static_assert(one_holds(memory_application) && one_holds(thread_application) &&
              one_holds(later_thread_application));

}  // namespace sanitizer_layout

/// Whether a program needs a library that must be loaded first, such as the shared runtimes of
/// AddressSanitizer.
bool needs_first_library(int fd);

}  // namespace xos::program
