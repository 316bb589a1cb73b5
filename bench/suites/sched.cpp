// Fibers of libxos beside threads, Boost.Fiber and GNU Pth.
#include "bench/suites/sched.hpp"

#include <pthread.h>
#include <sched.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <xos/sched.hpp>

#include "bench/clock.hpp"
#include "bench/harness.hpp"
#include "bench/suites/sched_loops.hpp"

namespace xos::bench {

namespace {

/// On the first fiber of a scheduler, when it has warmed up.
template <class F>
std::uint64_t on_scheduler(sched::scheduler_options options, F body) {
    sched::scheduler s(options);
    return s.run(body);
}

std::uint64_t yields(std::uint64_t operations) {
    return on_scheduler({}, [operations] {
        const auto side = [](std::uint64_t n) {
            for (; n; n--) sched::this_fiber::yield();
        };
        sched::fiber other([&] { side(operations / 2 + 4); });
        side(4);
        const std::uint64_t begin = ticks();
        side(operations / 2);
        return ticks() - begin;
    });
}

std::uint64_t spawns(std::uint64_t operations) {
    return on_scheduler({}, [operations] {
        for (int i = 0; i < 4; i++) sched::fiber([] {}).join();
        const std::uint64_t begin = ticks();
        for (std::uint64_t i = 0; i < operations; i++) sched::fiber([] {}).join();
        return ticks() - begin;
    });
}

template <class Mutex>
std::uint64_t locks(std::uint64_t operations) {
    return on_scheduler({}, [operations] {
        static Mutex m;
        return ticks_of_locks(m, operations);
    });
}

template <class Mutex>
std::uint64_t ping_pongs(std::uint64_t operations) {
    return on_scheduler({}, [operations] {
        return ticks_of_ping_pongs<sched::fiber, Mutex, sched::condition_variable>(operations);
    });
}

/// There and back between two workers that look for work for a while before they sleep.
std::uint64_t wakes(std::uint64_t operations) {
    // On one processor a worker that looks for work is in the way of the other.
    const std::chrono::milliseconds spin(std::thread::hardware_concurrency() > 1 ? 10 : 0);
    return on_scheduler({.workers = 2, .spin = spin}, [operations] {
        sched::semaphore there, back;
        sched::fiber other({.worker = 1}, [&] {
            for (std::uint64_t i = 0; i < operations / 2 + 1; i++) {
                there.acquire();
                back.release();
            }
        });
        there.release();
        back.acquire();
        const std::uint64_t begin = ticks();
        for (std::uint64_t i = 0; i < operations / 2; i++) {
            there.release();
            back.acquire();
        }
        return ticks() - begin;
    });
}

std::uint64_t sends(std::uint64_t operations) {
    return on_scheduler({}, [operations] {
        sched::channel<std::uint64_t> values(64);
        sched::fiber sender([&] {
            for (std::uint64_t i = 0; i < operations + 64; i++) values.send(i);
        });
        for (int i = 0; i < 64; i++) (void)values.receive();
        const std::uint64_t begin = ticks();
        for (std::uint64_t i = 0; i < operations; i++) (void)values.receive();
        return ticks() - begin;
    });
}

// ---- threads

std::uint64_t thread_yields(std::uint64_t operations) {
    std::atomic<bool> stop{false};
    // On one processor, so that each lets the other run.
    cpu_set_t before, one;
    pthread_getaffinity_np(pthread_self(), sizeof before, &before);
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    std::thread other([&] {
        while (!stop) sched_yield();
    });
    const std::uint64_t begin = ticks();
    for (std::uint64_t i = 0; i < operations; i += 2) sched_yield();
    const std::uint64_t passed = ticks() - begin;
    stop = true;
    other.join();
    pthread_setaffinity_np(pthread_self(), sizeof before, &before);
    return passed;
}

void thread_spawns(std::uint64_t operations) {
    for (; operations; operations--) std::thread([] {}).join();
}

void thread_locks(std::uint64_t operations) {
    static std::mutex m;
    lock_and_unlock(m, operations);
}

void thread_ping_pongs(std::uint64_t operations) {
    ping_pong<std::mutex, std::condition_variable> table;
    std::thread other([&] { table.side(true, operations / 2); });
    table.side(false, operations / 2);
    other.join();
}

side measured_inside(std::uint64_t (*measure)(std::uint64_t)) {
    return {.where = place::inside, .measure = measure};
}

const registration rows[] = {
    registration({.suite = "sched",
                  .name = "yield",
                  .note = "from one of two to the other, on one worker; two threads on one CPU",
                  .linux_way = side{.where = place::outside, .measure = thread_yields},
                  .xos_way = measured_inside(yields),
                  .others = {{"xos-outside", {.where = place::outside, .measure = yields}},
                             {"boost", {.where = place::outside, .measure = boost_yields}},
                             {"pth", {.where = place::own_process, .measure = pth_yields}}}}),
    registration({.suite = "sched",
                  .name = "spawn-join",
                  .note = "of one that does nothing",
                  .linux_way = side{.where = place::outside, .run = thread_spawns},
                  .xos_way = measured_inside(spawns),
                  .others = {{"xos-outside", {.where = place::outside, .measure = spawns}},
                             {"boost", {.where = place::outside, .measure = boost_spawns}},
                             {"pth", {.where = place::own_process, .measure = pth_spawns}}}}),
    registration({.suite = "sched",
                  .name = "mutex",
                  .note = "lock and unlock, for fibers of any worker and threads",
                  .linux_way = side{.where = place::outside, .run = thread_locks},
                  .xos_way = measured_inside(locks<sched::mutex>),
                  .others = {{"boost", {.where = place::outside, .measure = boost_locks}},
                             {"pth", {.where = place::own_process, .measure = pth_locks}}}}),
    registration({.suite = "sched",
                  .name = "mutex-local",
                  .note = "the same, for fibers of one worker",
                  .linux_way = side{.where = place::outside, .run = thread_locks},
                  .xos_way = measured_inside(locks<sched::local_mutex>)}),
    registration({.suite = "sched",
                  .name = "cv-ping-pong",
                  .note = "from one of two to the other, on one worker",
                  .linux_way = side{.where = place::outside, .run = thread_ping_pongs},
                  .xos_way = measured_inside(ping_pongs<sched::mutex>),
                  .others = {{"boost", {.where = place::outside, .measure = boost_ping_pongs}}}}),
    registration({.suite = "sched",
                  .name = "cv-ping-pong-local",
                  .note = "the same with a local mutex",
                  .linux_way = side{.where = place::outside, .run = thread_ping_pongs},
                  .xos_way = measured_inside(ping_pongs<sched::local_mutex>)}),
    registration({.suite = "sched",
                  .name = "wake-other-worker",
                  .note = "one way; both spin where there are two processors, else they sleep",
                  .linux_way = side{.where = place::outside, .run = thread_ping_pongs},
                  .xos_way = measured_inside(wakes),
                  .counted_operations = 40}),
    registration({.suite = "sched",
                  .name = "channel",
                  .note = "send and receive, room for 64",
                  .linux_way = std::nullopt,
                  .xos_way = measured_inside(sends),
                  .others = {{"boost", {.where = place::outside, .measure = boost_sends}}}}),
};

}  // namespace

}  // namespace xos::bench
