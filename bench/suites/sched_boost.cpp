// Boost.Fiber.
#include <boost/fiber/all.hpp>

#include "bench/clock.hpp"
#include "bench/suites/sched.hpp"
#include "bench/suites/sched_loops.hpp"

namespace xos::bench {

namespace fibers = boost::fibers;

std::uint64_t boost_yields(std::uint64_t operations) {
    const auto side = [](std::uint64_t n) {
        for (; n; n--) boost::this_fiber::yield();
    };
    fibers::fiber other([&] { side(operations / 2 + 4); });
    side(4);
    const std::uint64_t begin = ticks();
    side(operations / 2);
    const std::uint64_t passed = ticks() - begin;
    other.join();
    return passed;
}

std::uint64_t boost_spawns(std::uint64_t operations) {
    // Stacks that are used again, as ours are.
    fibers::pooled_fixedsize_stack stacks;
    const auto one = [&] { fibers::fiber(std::allocator_arg, stacks, [] {}).join(); };
    for (int i = 0; i < 4; i++) one();
    const std::uint64_t begin = ticks();
    for (std::uint64_t i = 0; i < operations; i++) one();
    return ticks() - begin;
}

std::uint64_t boost_locks(std::uint64_t operations) {
    fibers::mutex m;
    return ticks_of_locks(m, operations);
}

std::uint64_t boost_ping_pongs(std::uint64_t operations) {
    return ticks_of_ping_pongs<fibers::fiber, fibers::mutex, fibers::condition_variable>(
        operations);
}

std::uint64_t boost_sends(std::uint64_t operations) {
    fibers::buffered_channel<std::uint64_t> values(64);
    fibers::fiber sender([&] {
        for (std::uint64_t i = 0; i < operations + 64; i++) values.push(i);
    });
    std::uint64_t value;
    for (int i = 0; i < 64; i++) values.pop(value);
    const std::uint64_t begin = ticks();
    for (std::uint64_t i = 0; i < operations; i++) values.pop(value);
    const std::uint64_t passed = ticks() - begin;
    sender.join();
    return passed;
}

}  // namespace xos::bench
