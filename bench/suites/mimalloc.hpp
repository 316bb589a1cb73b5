// mimalloc as another way. Debian has only its shared library, and xos-bench is static: so the
// loops run in a program beside it, mimalloc_worker.cpp.
#pragma once

#include <cstdint>

#include "bench/harness.hpp"

namespace xos::bench {

/// Loops of alloc_loops.hpp, as the worker calls them.
inline constexpr char small_loop[] = "small", mixed_loop[] = "mixed", large_loop[] = "large",
                      latency_loop[] = "latency";

bool has_mimalloc();
void start_mimalloc(const char* loop);
std::uint64_t measure_mimalloc(std::uint64_t operations);
void end_mimalloc();

template <const char* Loop>
alternative mimalloc(std::uint64_t most = side{}.most) {
    return {.name = "mimalloc",
            .way = {.where = place::own_process,
                    .setup = [] { start_mimalloc(Loop); },
                    .measure = measure_mimalloc,
                    .teardown = end_mimalloc,
                    .most = most},
            .available = has_mimalloc};
}

}  // namespace xos::bench
