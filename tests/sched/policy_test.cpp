#include <algorithm>
#include <atomic>
#include <xos/sched/policy_check.hpp>

#include "tests/sched/support.hpp"

using namespace xos::sched;
using namespace xos::sched::test;
using namespace std::chrono_literals;

namespace {

namespace sched = xos::sched;

// docs/scheduler.md's.
class weighted {
  public:
    static constexpr sched::promise keeps = sched::promise::urgent_first;
    void start(const sched::worker_facts&) {}

    void enqueue(sched::task& t) {
        const std::lock_guard guard(lock_);
        const int level = std::clamp(t.priority, 0, 2);
        (t.shareable ? shared_ : own_)[level].push(t);
        held_++;
    }

    sched::task* pick() {
        const std::lock_guard guard(lock_);
        for (int level : {2, 1, 0}) {
            if (level > 0 && served_[level] >= 8 && lower_waits(level)) {
                served_[level] = 0;
                continue;
            }
            sched::task* t = own_[level].pop();
            if (!t) t = shared_[level].pop();
            if (!t) continue;
            served_[level]++;
            held_--;
            return t;
        }
        return nullptr;
    }

    sched::task* steal() {
        const std::lock_guard guard(lock_);
        for (int level : {2, 1, 0}) {
            if (sched::task* t = shared_[level].pop()) return held_--, t;
        }
        return nullptr;
    }

    std::size_t size() const { return held_; }

  private:
    bool lower_waits(int level) const {
        for (int l = level - 1; l >= 0; l--)
            if (!own_[l].empty() || !shared_[l].empty()) return true;
        return false;
    }
    sched::spin_lock lock_;
    sched::task_list own_[3], shared_[3];
    unsigned served_[3] = {};
    std::atomic<std::size_t> held_{0};
};

}  // namespace

TEMPLATE_TEST_CASE("every policy keeps the rules", "", work_stealing, fifo, xos::sched::priority,
                   earliest_deadline_first, random_order, weighted) {
    for (unsigned i = 0; i < scaled(40); i++) {
        for (unsigned workers : {1u, 3u})
            check_policy<TestType>(
                {.seed = seed() + i, .workers = workers, .rounds = scaled(200) + 10});
    }
}

namespace {

/// In which order fibers with these options run when all are ready.
template <class Policy>
std::string order_of(const std::vector<spawn_options>& options) {
    basic_scheduler<Policy> s;
    std::string order;
    s.run([&] {
        std::vector<fiber> all;
        for (const spawn_options& o : options)
            all.emplace_back(o, [&order, name = std::string(o.name)] { order += name; });
        for (fiber& f : all) f.join();
    });
    return order;
}

}  // namespace

TEST_CASE("urgent fibers come first") {
    CHECK(order_of<xos::sched::priority>({{.name = "a", .priority = 1},
                                          {.name = "b", .priority = 3},
                                          {.name = "c", .priority = 2},
                                          {.name = "d", .priority = 3}}) == "bdca");
    CHECK(order_of<earliest_deadline_first>({{.name = "a"},
                                             {.name = "b", .deadline = 300},
                                             {.name = "c", .deadline = 100},
                                             {.name = "d", .deadline = 200}}) == "cdba");
    CHECK(order_of<fifo>({{.name = "a", .priority = 1}, {.name = "b"}, {.name = "c"}}) == "abc");
}

TEST_CASE("the same seed gives the same schedule, timeouts included") {
    const auto schedule = [](std::uint64_t with) {
        basic_scheduler<random_order> s({.time = time_source::simulated, .seed = with});
        std::string order;
        s.run([&] {
            std::vector<fiber> all;
            semaphore units(1);
            for (char c = 'a'; c < 'k'; c++) {
                all.emplace_back([&order, &units, c] {
                    for (int i = 0; i < 10; i++) {
                        this_fiber::yield();
                        order += c;
                        this_fiber::sleep_for(std::chrono::hours(c % 3));
                        if (units.try_acquire_for(1s)) {
                            this_fiber::yield();
                            units.release();
                        } else {
                            order += '-';
                        }
                    }
                });
            }
            for (fiber& f : all) f.join();
        });
        return order;
    };
    CHECK(schedule(seed()) == schedule(seed()));
    CHECK(schedule(seed()) != schedule(seed() + 1));
}
