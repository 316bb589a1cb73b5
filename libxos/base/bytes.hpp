// memcpy and memset as instructions: kernel-side and run-loop code has no libc to call.
#pragma once

#include <cstddef>
#include <cstdint>

namespace xos::base {

inline void copy_bytes(void* to, const void* from, std::size_t n) {
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

inline void zero_bytes(void* to, std::size_t n) {
    asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0) : "memory");
}

// Writes eight bytes at a time, the fastest width; `n` is a multiple of eight.

inline void copy_words(void* to, const void* from, std::size_t n) {
    n /= 8;
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

inline void zero_words(void* to, std::size_t n) {
    n /= 8;
    asm volatile("rep stosq" : "+D"(to), "+c"(n) : "a"(0) : "memory");
}

template <class T>
T load(std::uint64_t address) {
    return *reinterpret_cast<const volatile T*>(address);
}

template <class T>
void store(std::uint64_t address, T value) {
    *reinterpret_cast<volatile T*>(address) = value;
}

}  // namespace xos::base
