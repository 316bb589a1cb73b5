// GNU Pth. It takes the process over, so each side has one to itself.
#include <pth.h>

#include <cstdlib>

#include "bench/clock.hpp"
#include "bench/suites/sched.hpp"

namespace xos::bench {

namespace {

void begin_pth() {
    if (!pth_init()) std::abort();
}

}  // namespace

std::uint64_t pth_yields(std::uint64_t operations) {
    begin_pth();
    static bool stop;
    stop = false;
    pth_t other = pth_spawn(
        PTH_ATTR_DEFAULT,
        [](void*) -> void* {
            while (!stop) pth_yield(nullptr);
            return nullptr;
        },
        nullptr);
    for (int i = 0; i < 4; i++) pth_yield(nullptr);
    const std::uint64_t begin = ticks();
    for (std::uint64_t i = 0; i < operations; i += 2) pth_yield(nullptr);
    const std::uint64_t passed = ticks() - begin;
    stop = true;
    pth_join(other, nullptr);
    pth_kill();
    return passed;
}

std::uint64_t pth_spawns(std::uint64_t operations) {
    begin_pth();
    const std::uint64_t begin = ticks();
    for (std::uint64_t i = 0; i < operations; i++)
        pth_join(pth_spawn(
                     PTH_ATTR_DEFAULT, [](void*) -> void* { return nullptr; }, nullptr),
                 nullptr);
    const std::uint64_t passed = ticks() - begin;
    pth_kill();
    return passed;
}

std::uint64_t pth_locks(std::uint64_t operations) {
    begin_pth();
    static pth_mutex_t m = PTH_MUTEX_INIT;
    const std::uint64_t begin = ticks();
    for (std::uint64_t i = 0; i < operations; i++) {
        pth_mutex_acquire(&m, FALSE, nullptr);
        asm volatile("" : : : "memory");
        pth_mutex_release(&m);
    }
    const std::uint64_t passed = ticks() - begin;
    pth_kill();
    return passed;
}

}  // namespace xos::bench
