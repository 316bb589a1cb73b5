// The mallocs that the suite `alloc` compares. Every side has a process to itself, so each has the
// memory that it made for itself and nobody else's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <xos/memory.hpp>

extern "C" {
// jemalloc's, renamed (bench/CMakeLists.txt).
void* jemalloc_malloc(std::size_t);
void* jemalloc_realloc(void*, std::size_t);
void jemalloc_free(void*);
}

namespace xos::bench {

struct glibc {
    static void* allocate(std::size_t n) { return std::malloc(n); }
    static void* reallocate(void* p, std::size_t n) { return std::realloc(p, n); }
    static void free(void* p, std::size_t) { std::free(p); }
};

struct jemalloc {
    static void* allocate(std::size_t n) { return jemalloc_malloc(n); }
    static void* reallocate(void* p, std::size_t n) { return jemalloc_realloc(p, n); }
    static void free(void* p, std::size_t) { jemalloc_free(p); }
};

/// xos::memory::arena, without a malloc.
struct extents {
    static memory::arena* pool;
    static void* allocate(std::size_t n) { return pool->allocate(n); }
    static void free(void* p, std::size_t n) { pool->free(p, n); }
};

/// A mapping each, of transparent huge pages where it is large enough.
struct mappings {
    static void* allocate(std::size_t n);
    static void free(void* p, std::size_t n);
};

// Before a side begins. The process ends with it, so nothing is undone.

/// glibc gives nothing back to Linux.
void keep_all_memory();
/// `extents`
void make_pool();
/// Resident from the start, for latencies.
void make_populated_pool();
/// jemalloc's extents come from an arena.
void put_jemalloc_on_arena();
void put_jemalloc_on_populated_arena();

/// Keeps the compiler from seeing that nobody looks at the memory.
inline void use(void* p) {
    asm volatile("" : : "r"(p) : "memory");
}

/// Writes to every page.
inline void touch(void* p, std::size_t n) {
    if (!p) throw std::bad_alloc();
    auto* bytes = static_cast<volatile char*>(p);
    for (std::size_t at = 0; at < n; at += 4096) bytes[at] = 1;
}

/// Marsaglia's xorshift: the same sequence for every side.
struct random_sequence {
    std::uint64_t state = 88172645463325252;

    std::uint64_t next() {
        state ^= state << 13;
        state ^= state >> 7;
        return state ^= state << 17;
    }
    /// Of [low, low << doublings), each power of two as likely as the next.
    std::size_t size(std::size_t low, unsigned doublings) {
        const std::size_t base = low << next() % doublings;
        return base + next() % base;
    }
};

}  // namespace xos::bench
