// The mallocs that the suite `alloc` compares. Every side has a process to itself, so each has the
// memory that it made for itself and nobody else's.
#pragma once

#include <cstddef>
#include <cstdlib>
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

}  // namespace xos::bench
