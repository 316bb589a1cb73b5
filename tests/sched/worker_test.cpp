#include <thread>

#include "tests/sched/support.hpp"

using namespace xos::sched;
using namespace xos::sched::test;
using namespace std::chrono_literals;

TEST_CASE("sleeps end in the order of their deadlines, and not before") {
    scheduler s;
    std::vector<int> order;
    s.run([&] {
        std::vector<fiber> all;
        for (int ms : {9, 3, 6, 1}) {
            all.emplace_back([&order, ms] {
                const auto begin = std::chrono::steady_clock::now();
                this_fiber::sleep_for(std::chrono::milliseconds(ms));
                CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::milliseconds(ms));
                order.push_back(ms);
            });
        }
        for (fiber& f : all) f.join();
        this_fiber::sleep_until(std::chrono::system_clock::now() + 1ms);
        this_fiber::sleep_until(std::chrono::steady_clock::time_point::min());
        this_fiber::sleep_for(-1h);
    });
    CHECK(order == std::vector{1, 3, 6, 9});
    CHECK(deadline_after(std::chrono::hours::max()) == deadline_after(1e300 * 1s));
}

TEST_CASE("a sleep ends while other fibers never rest") {
    scheduler s;
    s.run([] {
        fiber busy([](std::stop_token t) {
            while (!t.stop_requested()) this_fiber::yield();
        });
        const auto begin = std::chrono::steady_clock::now();
        this_fiber::sleep_for(2ms);
        CHECK(std::chrono::steady_clock::now() - begin >= 2ms);
    });
}

TEST_CASE("many timers, most of them taken back") {
    basic_scheduler<work_stealing> s({.time = time_source::simulated});
    const unsigned n = scaled(40'000);
    unsigned expired = 0, woken = 0;
    s.run([&] {
        std::vector<fiber> all;
        semaphore units;
        for (unsigned i = 0; i < n; i++) {
            all.emplace_back([&, i] {
                (units.try_acquire_for(std::chrono::seconds(1 + i * 7919 % 1000)) ? woken
                                                                                  : expired)++;
            });
        }
        this_fiber::sleep_for(500500ms);
        const unsigned before = expired;
        CHECK(before > n / 3);
        units.release(n - before);
        for (fiber& f : all) f.join();
        // Deadlines that are never met leave nothing behind.
        for (unsigned i = 0; i < 10 * n; i++) {
            units.release();
            fiber f([&] { CHECK(units.try_acquire_for(1000h)); });
            f.join();
        }
    });
    CHECK(expired + woken == n);
}

TEST_CASE("idle workers sleep, and use no processor time") {
    scheduler s({.workers = 3});
    s.run([&] {
        // Their threads have begun when they have run one.
        for (int i : {1, 2}) fiber({.worker = i}, [] {}).join();
        const std::int64_t before = processor_time();
        this_fiber::sleep_for(200ms);
        CHECK(processor_time() - before < 10'000'000);
    });
}

TEST_CASE("an idle worker takes fibers that may move, and no others") {
    scheduler s({.workers = 2});
    s.run([&] {
        const auto home = std::this_thread::get_id();
        std::atomic<unsigned> elsewhere{0}, left{0};
        std::vector<fiber> all;
        for (int i = 0; i < 4; i++) {
            all.emplace_back([&] { elsewhere += std::this_thread::get_id() != home; });
            all.emplace_back(spawn_options{.migrate = migration::allowed},
                             [&] { elsewhere += std::this_thread::get_id() != home; });
            all.emplace_back(spawn_options{.worker = 0}, [&] {
                for (int turn = 0; turn < 100; turn++) {
                    left += std::this_thread::get_id() != home;
                    this_fiber::yield();
                }
            });
        }
        // Whoever holds the worker leaves the rest to others.
        const auto until = std::chrono::steady_clock::now() + 10s;
        while (elsewhere < 8 && std::chrono::steady_clock::now() < until) std::this_thread::yield();
        CHECK(elsewhere == 8);
        for (fiber& f : all) f.join();
        CHECK(left == 0);
    });
    CHECK(s.statistics().steals == 8);
}

TEST_CASE("workers come and go while fibers run") {
    scheduler s;
    const unsigned rounds = scaled(200);
    std::atomic<std::uint64_t> steps{0};
    s.run([&] {
        std::vector<fiber> all;
        std::atomic<bool> end{false};
        for (int i = 0; i < 20; i++) {
            all.emplace_back(spawn_options{.migrate = migration::allowed}, [&] {
                while (!end) {
                    steps++;
                    this_fiber::sleep_for(20us);
                }
            });
        }
        for (unsigned r = 0; r < rounds; r++) {
            s.set_workers(1 + r * 7 % 5);
            CHECK(s.workers() == 1 + r * 7 % 5);
            const int last = static_cast<int>(s.workers()) - 1;
            fiber placed({.worker = last}, [] { this_fiber::sleep_for(50us); });
            s.set_workers(1);
            placed.join();
        }
        end = true;
        for (fiber& f : all) f.join();
    });
    CHECK(steps > 0);
    CHECK(code_of([&] { s.set_workers(0); }) == std::errc::invalid_argument);
}

TEST_CASE("a deadlock of all fibers is reported with who waits on what") {
    for (const unsigned workers : {1u, 3u}) {
        const ended e = in_child([workers] {
            scheduler s({.workers = workers, .deadlocks = deadlock_check::report});
            mutex first, second;
            latch both_hold_one(2);
            const std::error_code c = code_of([&] {
                s.run([&] {
                    const auto cross = [&](mutex& a, mutex& b) {
                        const std::lock_guard one(a);
                        both_hold_one.arrive_and_wait();
                        const std::lock_guard two(b);
                    };
                    fiber x({.name = "x"}, [&] { cross(first, second); });
                    fiber y({.name = "y"}, [&] { cross(second, first); });
                    x.join();
                });
            });
            _exit(c == std::errc::resource_deadlock_would_occur ? 7 : 8);
        });
        CHECK(e.status == "exit 7");
        CAPTURE(e.errors);
        CHECK(e.errors.find("\"x\": waits for a mutex") != std::string::npos);
        CHECK(e.errors.find("\"main\": waits for the end of fiber") != std::string::npos);
        CHECK(e.errors.find("\"y\"\n") != std::string::npos);
    }
}

TEST_CASE("dump lists every fiber") {
    scheduler s;
    s.run([&] {
        semaphore gate;
        fiber waits({.name = "waits"}, [&] { gate.acquire(); });
        fiber ready({.name = "ready"}, [] { this_fiber::yield(); });
        this_fiber::yield();
        const std::string text = s.dump();
        CHECK(text.find("\"main\": runs") != std::string::npos);
        CHECK(text.find("\"waits\": waits for a semaphore") != std::string::npos);
        CHECK(text.find("\"ready\": ready") != std::string::npos);
        gate.release();
    });
}

namespace {

/// An engine that completes requests when it is polled, and sleeps by itself.
struct engine {
    std::vector<suspension*> requests;
    unsigned polls = 0, parks = 0;
};

}  // namespace

TEST_CASE("an engine collects completions between two fibers and in place of sleeping") {
    engine e;
    const auto complete = [](void* c, unsigned) {
        auto& it = *static_cast<engine*>(c);
        it.polls++;
        for (suspension* r : it.requests) r->resume();
        it.requests.clear();
    };
    const worker_hooks hooks{
        .context = &e,
        .poll = complete,
        .park = [](void* c, unsigned, std::int64_t) { static_cast<engine*>(c)->parks++; },
        .unpark = [](void*, unsigned) {}};
    scheduler s({.hooks = hooks});
    unsigned completed = 0;
    s.run([&] {
        std::vector<fiber> all;
        for (int i = 0; i < 10; i++) {
            all.emplace_back([&] {
                suspension request;
                e.requests.push_back(&request);
                request.wait("a request");
                completed++;
            });
        }
        for (fiber& f : all) f.join();
    });
    CHECK(completed == 10);
    CHECK(e.polls > 0);
}
