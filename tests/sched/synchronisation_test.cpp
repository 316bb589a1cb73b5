#include <atomic>
#include <mutex>
#include <numeric>
#include <random>
#include <shared_mutex>
#include <thread>

#include "tests/sched/support.hpp"

using namespace xos::sched;
using namespace xos::sched::test;
using namespace std::chrono_literals;

namespace {

/// The same body on fibers of all workers, and on plain threads beside them.
void on_fibers_and_threads(scheduler& s, unsigned fibers, unsigned threads,
                           const std::function<void(unsigned)>& body) {
    s.run([&] {
        std::vector<fiber> all;
        for (unsigned i = 0; i < fibers; i++) {
            all.emplace_back(
                spawn_options{.migrate = i % 3 ? migration::pinned : migration::allowed,
                              .worker = i % 3 == 1 ? static_cast<int>(i % s.workers()) : -1},
                [&body, i] { body(i); });
        }
        std::vector<std::thread> outside;
        for (unsigned i = 0; i < threads; i++)
            outside.emplace_back([&body, i, fibers] { body(fibers + i); });
        for (fiber& f : all) f.join();
        for (std::thread& t : outside) t.join();
    });
}

}  // namespace

TEST_CASE("a mutex excludes fibers and threads") {
    scheduler s({.workers = 3});
    mutex m;
    long count = 0;
    const unsigned rounds = scaled(20000);
    on_fibers_and_threads(s, 9, 2, [&](unsigned i) {
        for (unsigned r = 0; r < rounds; r++) {
            if (r % 8 == i % 8) {
                std::unique_lock lock(m, std::defer_lock);
                if (!lock.try_lock_for(std::chrono::microseconds(1 + r % 50))) lock.lock();
                count++;
            } else {
                std::scoped_lock lock(m);
                count++;
                if (r % 64 == 0) this_fiber::yield();
            }
        }
    });
    CHECK(count == 11L * rounds);
    m.lock();
    CHECK(code_of([&] { m.lock(); }) == std::errc::resource_deadlock_would_occur);
    m.unlock();
}

TEST_CASE("a mutex goes to who has waited longest") {
    scheduler s;
    std::string order;
    const auto check = [&](auto& m) {
        order.clear();
        s.run([&] {
            m.lock();
            std::vector<fiber> all;
            for (char c : {'a', 'b', 'c'}) {
                all.emplace_back([&, c] {
                    const std::lock_guard guard(m);
                    order += c;
                    this_fiber::yield();
                });
            }
            this_fiber::yield();
            m.unlock();
            CHECK_FALSE(m.try_lock());
            for (fiber& f : all) f.join();
        });
        CHECK(order == "abc");
    };
    mutex general;
    local_mutex local;
    check(general);
    check(local);
}

TEST_CASE("a shared mutex admits readers together and writers alone") {
    scheduler s({.workers = 3});
    shared_mutex m;
    std::atomic<int> readers{0}, writers{0};
    std::atomic<bool> wrong{false};
    const unsigned rounds = scaled(4000);
    on_fibers_and_threads(s, 9, 2, [&](unsigned i) {
        for (unsigned r = 0; r < rounds; r++) {
            if ((i + r) % 4 == 0) {
                std::unique_lock lock(m, std::defer_lock);
                if (r % 3 == 0 ? !lock.try_lock_for(20us) : (lock.lock(), false)) continue;
                if (++writers != 1 || readers != 0) wrong = true;
                if (r % 16 == 0) this_fiber::yield();
                writers--;
            } else {
                std::shared_lock lock(m, std::defer_lock);
                if (r % 3 == 0 ? !lock.try_lock_for(20us) : (lock.lock(), false)) continue;
                readers++;
                if (writers != 0) wrong = true;
                if (r % 16 == 0) this_fiber::yield();
                readers--;
            }
        }
    });
    CHECK_FALSE(wrong);
    CHECK(m.try_lock());
    m.unlock();
}

TEST_CASE("a condition variable loses no notification") {
    scheduler s({.workers = 3});
    mutex m;
    condition_variable changed;
    unsigned turn = 0;
    const unsigned rounds = scaled(4000), members = 6;
    on_fibers_and_threads(s, 5, 1, [&](unsigned i) {
        for (unsigned r = 0; r < rounds; r++) {
            std::unique_lock lock(m);
            if (r % 2)
                changed.wait(lock, [&] { return turn % members == i; });
            else
                while (!changed.wait_for(lock, 300us, [&] { return turn % members == i; })) {
                }
            turn++;
            changed.notify_all();
        }
    });
    CHECK(turn == members * rounds);
}

TEST_CASE("semaphore, latch and barrier") {
    scheduler s({.workers = 3});
    semaphore units(2);
    std::atomic<int> inside{0};
    std::atomic<bool> wrong{false};
    const unsigned rounds = scaled(2000), members = 8;
    latch all_here(members);
    std::atomic<unsigned> phase{0};
    barrier together(members, [&] { phase++; });
    on_fibers_and_threads(s, 6, 2, [&](unsigned) {
        all_here.arrive_and_wait();
        for (unsigned r = 0; r < rounds; r++) {
            units.acquire();
            if (++inside > 2) wrong = true;
            inside--;
            units.release();
            together.arrive_and_wait();
            if (phase < r + 1) wrong = true;
        }
    });
    CHECK_FALSE(wrong);
    CHECK(phase == rounds);
    CHECK(all_here.try_wait());
    CHECK(units.try_acquire());
    CHECK(units.try_acquire());
    CHECK_FALSE(units.try_acquire());
    CHECK_FALSE(units.try_acquire_for(1ms));
}

TEST_CASE("a channel delivers every value once, in order of each sender") {
    scheduler s({.workers = 3});
    const unsigned rounds = scaled(10000), senders = 4;
    for (const std::size_t capacity : {1u, 7u}) {
        channel<std::unique_ptr<unsigned>> values(capacity);
        std::atomic<unsigned> left{senders};
        std::atomic<std::uint64_t> sum{0}, received{0};
        std::atomic<bool> wrong{false};
        on_fibers_and_threads(s, 6, 2, [&](unsigned i) {
            if (i % 2 == 0) {
                for (unsigned r = 0; r < rounds; r++)
                    values.send(std::make_unique<unsigned>(r * 8 + i));
                if (--left == 0) values.close();
            } else {
                std::array<unsigned, 8> last{};
                while (auto v = values.receive()) {
                    if (last[**v % 8] > **v) wrong = true;
                    last[**v % 8] = **v;
                    sum += **v;
                    received++;
                }
            }
        });
        CHECK_FALSE(wrong);
        CHECK(received == std::uint64_t{rounds} * senders);
        CHECK(sum == 8ull * senders * (std::uint64_t{rounds} * (rounds - 1) / 2) +
                         std::uint64_t{rounds} * (0 + 2 + 4 + 6));
        CHECK_FALSE(values.send(nullptr));
    }
    CHECK(code_of([] { channel<int> none(0); }) == std::errc::invalid_argument);
}

TEST_CASE("select takes from whichever channel can go on") {
    scheduler s({.workers = 2});
    const unsigned rounds = scaled(10000);
    channel<unsigned> a(2), b(2), out(1);
    std::uint64_t taken = 0;
    unsigned closed = 0;
    s.run([&] {
        fiber one({.worker = 1}, [&] {
            for (unsigned r = 0; r < rounds; r++) a.send(r);
            a.close();
        });
        fiber two([&] {
            for (unsigned r = 0; r < rounds; r++) b.send(r);
            b.close();
        });
        std::uint64_t passed_on = 0;
        fiber sink({.worker = 1}, [&] {
            while (out.receive()) passed_on++;
        });
        unsigned sent = 0;
        bool a_open = true, b_open = true;
        while (a_open || b_open) {
            select(on_receive(a_open ? a : b,
                              [&](std::optional<unsigned> v) {
                                  if (v)
                                      taken++;
                                  else
                                      (a_open ? a_open : b_open) = false, closed++;
                              }),
                   on_receive(b_open ? b : a,
                              [&](std::optional<unsigned> v) {
                                  if (v)
                                      taken++;
                                  else
                                      (b_open ? b_open : a_open) = false, closed++;
                              }),
                   on_send(out, 5u, [&](bool ok) { sent += ok; }));
        }
        out.close();
        sink.join();
        CHECK(sent == passed_on);
    });
    CHECK(taken == 2ull * rounds);
    CHECK(closed == 2);
    // Two that select on each other's channels meet.
    channel<int> left(1), right(1);
    left.send(0);
    CHECK_FALSE(select({.deadline = deadline_after(1ms)}, on_send(left, 1, [](bool) {}),
                       on_receive(right, [](auto) {})));
}

TEST_CASE("a plain thread wakes a fiber by a suspension") {
    scheduler s;
    std::uint64_t sum = 0;
    s.run([&] {
        for (unsigned i = 0; i < scaled(2000); i++) {
            suspension done;
            unsigned answer = 0;
            std::thread engine([&] {
                answer = i;
                done.resume();
            });
            done.wait();
            sum += answer;
            engine.join();
        }
    });
    const std::uint64_t n = scaled(2000);
    CHECK(sum == n * (n - 1) / 2);
}
