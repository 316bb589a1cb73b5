#include <array>
#include <thread>

#include "tests/sched/support.hpp"

using namespace xos::sched;
using namespace xos::sched::test;
using namespace std::chrono_literals;

TEST_CASE("run returns what the first fiber returns, after all have ended") {
    scheduler s;
    bool other_ended = false;
    CHECK(s.run([&] {
        fiber([&] {
            this_fiber::yield();
            other_ended = true;
        }).detach();
        return 42;
    }) == 42);
    CHECK(other_ended);
    CHECK_THROWS_AS(s.run([] { throw std::out_of_range("far"); }), std::out_of_range);
    CHECK(s.run([] { return std::make_unique<int>(7); }) != nullptr);
}

TEST_CASE("fibers of a worker run in the order in which they became ready") {
    scheduler s;
    std::string order;
    s.run([&] {
        std::vector<fiber> all;
        for (char c : {'a', 'b', 'c'}) {
            all.emplace_back([&order, c] {
                for (int i = 0; i < 3; i++) {
                    order += c;
                    this_fiber::yield();
                }
            });
        }
        for (fiber& f : all) f.join();
    });
    CHECK(order == "abcabcabc");
}

TEST_CASE("join throws what the fiber threw") {
    scheduler s;
    s.run([] {
        fiber f([] { throw std::runtime_error("thrown"); });
        CHECK_THROWS_WITH(f.join(), "thrown");
        CHECK_FALSE(f.joinable());
        fiber ended([] { throw std::runtime_error("earlier"); });
        this_fiber::yield();
        this_fiber::yield();
        CHECK_THROWS_WITH(ended.join(), "earlier");
    });
}

TEST_CASE("misuse of handles is refused") {
    scheduler s;
    CHECK(code_of([] { fiber f([] {}); }) == std::errc::operation_not_permitted);
    CHECK(code_of([&] { s.spawn([] {}); }) == std::errc::operation_not_permitted);
    s.run([&] {
        fiber f([] {});
        f.join();
        CHECK(code_of([&] { f.join(); }) == std::errc::invalid_argument);
        CHECK(code_of([&] { f.detach(); }) == std::errc::invalid_argument);
        CHECK(code_of([&] { s.run([] {}); }) == std::errc::operation_not_permitted);
        std::error_code own;
        fiber self;
        self = fiber([&] { own = code_of([&] { self.join(); }); });
        this_fiber::yield();
        CHECK(own == std::errc::resource_deadlock_would_occur);
        self.join();
        // Two join one.
        semaphore gate;
        fiber target([&] { gate.acquire(); });
        std::error_code second;
        fiber a([&] { target.join(); });
        fiber b([&] {
            second = code_of([&] { target.join(); });
            gate.release();
        });
        a.join();
        b.join();
        CHECK(second == std::errc::invalid_argument);
        struct large {
            std::array<char, 100'000> bytes;
            void operator()() const {}
        };
        CHECK(code_of([] { fiber f(large{}); }) == std::errc::value_too_large);
        CHECK(code_of([] { fiber f({.worker = 1}, [] {}); }) == std::errc::invalid_argument);
    });
    CHECK(code_of([] { scheduler bad({.workers = 0}); }) == std::errc::invalid_argument);
    CHECK(code_of([] { scheduler bad({.stack_bytes = 5000}); }) == std::errc::invalid_argument);
}

TEST_CASE("a plain thread spawns and joins") {
    scheduler s({.workers = 2});
    s.run([&] {
        semaphore ended;
        std::thread outside([&] {
            int sum = 0;
            for (int i = 1; i <= 100; i++) {
                fiber f = s.spawn([&sum, i] { sum += i; });
                f.join();
            }
            if (sum != 5050) ended.release(-1);
            ended.release();
        });
        ended.acquire();
        outside.join();
    });
}

TEST_CASE("a fiber has a name, an id and storage of its own") {
    scheduler s;
    static int made, gone;
    made = gone = 0;
    struct counted {
        int value = 0;
        counted() { made++; }
        ~counted() { gone++; }
    };
    fiber_local<counted> local;
    s.run([&] {
        std::vector<fiber> all;
        for (int i = 0; i < 10; i++) {
            all.emplace_back(spawn_options{.name = "number " + std::to_string(i)}, [&, i] {
                local->value = i;
                this_fiber::yield();
                CHECK(local->value == i);
                CHECK(this_fiber::name() == "number " + std::to_string(i));
            });
        }
        CHECK(all[0].id() != all[1].id());
        for (fiber& f : all) f.join();
        this_fiber::set_name(std::string(50, 'x'));
        CHECK(this_fiber::name() == std::string(31, 'x'));
    });
    CHECK(made == 10);
    CHECK(gone == 10);
    local->value = 5;
    CHECK(local->value == 5);
    std::thread([&] { CHECK(local->value == 0); }).join();
    CHECK(gone == 11);
}

TEST_CASE("a fiber switches while it handles an exception") {
    scheduler s;
    s.run([] {
        const auto thrower = [](int n) {
            for (int i = 0; i < 50; i++) {
                try {
                    throw n * 1000 + i;
                } catch (int outer) {
                    this_fiber::yield();
                    try {
                        throw std::to_string(outer);
                    } catch (const std::string& inner) {
                        this_fiber::yield();
                        CHECK(inner == std::to_string(n * 1000 + i));
                    }
                    CHECK_THROWS_AS([] { throw; }(), int);
                    CHECK(outer == n * 1000 + i);
                }
                CHECK(std::current_exception() == nullptr);
            }
        };
        fiber a([&] { thrower(1); }), b([&] { thrower(2); });
        a.join();
        b.join();
    });
}

TEST_CASE("stop reaches a fiber in every state") {
    scheduler s;
    s.run([] {
        // Not begun.
        bool seen = false;
        fiber early([&](std::stop_token t) { seen = t.stop_requested(); });
        CHECK(early.request_stop());
        CHECK_FALSE(early.request_stop());
        early.join();
        CHECK(seen);
        // Asleep.
        wait_result r{};
        fiber sleeper([&](std::stop_token t) { r = this_fiber::sleep({.stop = t}); });
        this_fiber::yield();
        sleeper.request_stop();
        sleeper.join();
        CHECK(r == wait_result::stopped);
        // About to wait.
        fiber late([&](std::stop_token t) {
            this_fiber::yield();
            r = this_fiber::sleep({.stop = t});
        });
        this_fiber::yield();
        r = {};
        late.request_stop();
        late.join();
        CHECK(r == wait_result::stopped);
        // In each kind of wait.
        mutex m;
        shared_mutex sm;
        condition_variable c;
        semaphore sem;
        latch l(1);
        barrier b(100);
        channel<int> empty(1), full(1);
        full.send(1);
        m.lock();
        sm.lock();
        std::vector<std::function<bool(const wait_limits&)>> waits{
            [&](auto& w) { return m.try_lock(w) == wait_result::stopped; },
            [&](auto& w) { return sm.try_lock(w) == wait_result::stopped; },
            [&](auto& w) { return sm.try_lock_shared(w) == wait_result::stopped; },
            [&](auto& w) {
                mutex own;
                std::unique_lock guard(own);
                return c.wait(guard, w) == wait_result::stopped && guard.owns_lock();
            },
            [&](auto& w) { return sem.try_acquire(w) == wait_result::stopped; },
            [&](auto& w) { return l.wait(w) == wait_result::stopped; },
            [&](auto& w) { return b.arrive_and_wait(w) == wait_result::stopped; },
            [&](auto& w) { return !empty.try_receive(w); },
            [&](auto& w) {
                int value = 2;
                return !full.try_send(value, w);
            },
            [&](auto& w) { return !select(w, on_receive(empty, [](auto) {})); },
            [&](auto& w) {
                fiber other([](std::stop_token t) { (void)this_fiber::sleep({.stop = t}); });
                return other.join(w) == wait_result::stopped;
            },
        };
        for (std::size_t i = 0; i < waits.size(); i++) {
            CAPTURE(i);
            bool stopped = false;
            fiber f([&](std::stop_token t) { stopped = waits[i]({.stop = t}); });
            this_fiber::yield();
            f.request_stop();
            f.join();
            CHECK(stopped);
            bool timed_out = false;
            fiber g([&] {
                const auto before = std::chrono::steady_clock::now();
                (void)waits[i]({.deadline = deadline_after(2ms)});
                timed_out = std::chrono::steady_clock::now() - before >= 2ms;
            });
            g.join();
            CHECK(timed_out);
        }
        m.unlock();
        sm.unlock();
        CHECK(sm.try_lock());
        sm.unlock();
        CHECK(m.try_lock());
        m.unlock();
    });
}

TEST_CASE("a handle that goes stops its fiber and waits for it") {
    scheduler s;
    bool stopped = false;
    s.run([&] {
        fiber f([&](std::stop_token t) {
            while (!t.stop_requested()) this_fiber::yield();
            stopped = true;
        });
        this_fiber::yield();
        f = fiber();
        CHECK(stopped);
    });
}

TEST_CASE("an exception that nobody joins for ends the process with the fiber's name") {
    const ended e = in_child([] {
        scheduler s;
        s.run([] {
            fiber({.name = "loner"}, [] { throw std::runtime_error("a reason"); }).detach();
            this_fiber::yield();
            this_fiber::yield();
        });
    });
    CHECK(e.status == "signal 6");
    CHECK(e.errors.find("\"loner\": nobody joins it, and it threw std::runtime_error: a reason") !=
          std::string::npos);
}

namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winfinite-recursion"
[[gnu::noinline]] int fall(volatile int* above) {
    volatile int here[64] = {*above};
    return fall(here) + here[1];
}
#pragma GCC diagnostic pop

}  // namespace

TEST_CASE("an overflow of the stack is reported with the fiber's name") {
    if (!at_full_speed()) {
#if defined(XOS_SCHED_ASAN) || defined(XOS_SCHED_TSAN)
        return;  // theirs is another report
#endif
    }
    const ended e = in_child([] {
        scheduler s;
        s.run([] {
            fiber a({.name = "neighbour"}, [] { this_fiber::yield(); });
            fiber f({.name = "deep"}, [] {
                volatile int top = 1;
                fall(&top);
            });
            f.join();
        });
    });
    CHECK(e.status == "signal 11");
    CHECK(e.errors.find("\"deep\": stack overflow (1") != std::string::npos);
}

TEST_CASE("a child of a fork has the fiber that forked, and no other") {
    scheduler s({.workers = 2});
    ended e;
    s.run([&] {
        semaphore never;
        fiber waits([&](std::stop_token t) { (void)never.try_acquire({.stop = t}); });
        fiber busy([](std::stop_token t) {
            while (!t.stop_requested()) this_fiber::yield();
        });
        e = in_child([&] {
            int others = 0;
            fiber f([&] { others++; });
            f.join();
            this_fiber::sleep_for(1ms);
            _exit(others == 1 ? 3 : 4);
        });
    });
    CHECK(e.status == "exit 3");
}

namespace {

void live_at_once(unsigned n) {
    scheduler s;
    unsigned ran = 0;
    s.run([&] {
        latch gate(1);
        semaphore arrived;
        std::vector<fiber> all;
        all.reserve(n);
        for (unsigned i = 0; i < n; i++) {
            all.emplace_back([&] {
                volatile char touched[1024];
                touched[0] = 1;
                ran++;
                gate.wait();
                ran += touched[0];
            });
        }
        while (ran < n) this_fiber::yield();
        gate.count_down();
        for (fiber& f : all) f.join();
    });
    CHECK(ran == 2 * n);
}

}  // namespace

// More than vm.max_map_count has room for with a mapping a guard.
TEST_CASE("many fibers live at once") {
    live_at_once(at_full_speed() ? 50'000 : 2000);
}

// Where a first touch of memory is slow this takes minutes.
TEST_CASE("a million fibers live at once", "[.]") {
    live_at_once(1'000'000);
}
