// xos-bench-mimalloc LOOP: what the suite `alloc` does, on mimalloc. Reads lines of operations, and
// answers each with the ticks that they took.
#include <mimalloc.h>

#include <iostream>
#include <optional>
#include <string_view>

#include "bench/round.hpp"
#include "bench/suites/alloc_loops.hpp"
#include "bench/suites/mimalloc.hpp"

namespace {

using namespace xos::bench;

struct shared_library {
    static void* allocate(std::size_t n) { return mi_malloc(n); }
    static void* reallocate(void* p, std::size_t n) { return mi_realloc(p, n); }
    static void free(void* p, std::size_t) { mi_free(p); }
};

std::optional<side> find(std::string_view loop) {
    if (loop == small_loop) return small_objects<shared_library>(place::own_process);
    if (loop == mixed_loop) return mixed_objects<shared_library>(place::own_process);
    if (loop == large_loop) return large_blocks<shared_library>(place::own_process);
    if (loop == latency_loop) return latencies<shared_library>(place::own_process);
    return std::nullopt;
}

}  // namespace

int main(int argc, char** argv) {
    const auto loop = argc == 2 ? find(argv[1]) : std::nullopt;
    if (!loop) {
        std::cerr << "usage: xos-bench-mimalloc small|mixed|large|latency\n";
        return 2;
    }
    loop->setup();
    for (std::uint64_t operations; std::cin >> operations;)
        std::cout << measured(*loop, operations) << std::endl;
    if (loop->teardown) loop->teardown();
}
