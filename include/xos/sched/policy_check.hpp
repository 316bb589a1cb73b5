// What every policy must pass.
//
//     xos::sched::check_policy<my_policy>({.seed = seed_of_this_run});
//
// It runs schedulers with the policy and throws a std::logic_error that says which rule was broken,
// and with which seed.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>
#include <xos/sched.hpp>

namespace xos::sched {

struct check_options {
    std::uint64_t seed = 1;
    unsigned workers = 2;
    unsigned rounds = 200;  ///< the length of random walks
};

namespace detail {

template <policy Policy>
class policy_checker {
  public:
    explicit policy_checker(const check_options& o) : options_(o), random_(o.seed) {}

    void run() {
        holds_what_it_gets();
        gives_away_only_what_may_move();
        loses_no_fiber();
        loses_no_wake_up();
        if constexpr (Policy::keeps == promise::every_task_runs) starves_nobody();
    }

  private:
    void require(bool condition, const char* rule) const {
        if (!condition)
            throw std::logic_error(std::string("policy: ") + rule + " (seed " +
                                   std::to_string(options_.seed) + ")");
    }
    [[nodiscard]] unsigned below(unsigned n) { return static_cast<unsigned>(random_() % n); }

    struct loose_policy {
        loose_policy() { policy.start({.index = 0, .seed = 1, .own = &own}); }
        task_list own;
        Policy policy;
    };

    std::vector<task> tasks(unsigned n) {
        std::vector<task> all(n);
        for (task& t : all) {
            t.priority = static_cast<int>(below(5));
            t.deadline = below(3) ? static_cast<std::int64_t>(below(1000)) : never;
            t.shareable = below(2);
        }
        return all;
    }

    void holds_what_it_gets() {
        loose_policy loose;
        std::vector<task> all = tasks(options_.rounds);
        std::set<task*> held;
        for (unsigned next = 0; next < all.size() || !held.empty();) {
            if (next < all.size() && below(2)) {
                loose.policy.enqueue(all[next]);
                held.insert(&all[next++]);
                continue;
            }
            task* const t = below(4) ? loose.policy.pick() : loose.policy.steal();
            if (!t) {
                // steal() may decline; pick() may not.
                t_picked(loose, held);
                continue;
            }
            require(held.erase(t) == 1, "a task comes out once, after it went in");
        }
        require(!loose.policy.pick() && !loose.policy.steal() && loose.policy.size() == 0,
                "an empty policy is empty");
    }
    void t_picked(loose_policy& loose, std::set<task*>& held) {
        task* const t = loose.policy.pick();
        require(!t == held.empty(), "pick() finds what is there");
        if (t) require(held.erase(t) == 1, "a task comes out once, after it went in");
    }

    void gives_away_only_what_may_move() {
        loose_policy loose;
        std::vector<task> all = tasks(options_.rounds);
        for (task& t : all) loose.policy.enqueue(t);
        while (task* const t = loose.policy.steal())
            require(t->shareable, "steal() gives shareable tasks only");
        while (task* const t = loose.policy.pick())
            require(!t->shareable, "steal() gives every shareable task in the end");
    }

    spawn_options any_options() {
        return {.migrate = below(2) ? migration::allowed : migration::pinned,
                .priority = static_cast<std::int32_t>(below(5)),
                .deadline = static_cast<std::int64_t>(below(1000))};
    }

    void loses_no_fiber() {
        basic_scheduler<Policy> s({.workers = options_.workers, .seed = options_.seed});
        std::atomic<unsigned> steps{0};
        const unsigned n = options_.rounds;
        s.run([&] {
            std::vector<fiber> all;
            for (unsigned i = 0; i < n; i++) {
                const unsigned yields = below(10);
                all.emplace_back(any_options(), [&steps, yields] {
                    for (unsigned y = 0; y < yields; y++) this_fiber::yield();
                    steps++;
                });
            }
            for (fiber& f : all) f.join();
        });
        require(steps == n, "every fiber runs to its end");
    }

    /// A token goes around a ring; a lost wake-up stops it.
    void loses_no_wake_up() {
        basic_scheduler<Policy> s({.workers = options_.workers, .seed = options_.seed});
        const unsigned members = 5, laps = options_.rounds;
        std::vector<std::unique_ptr<semaphore>> turn;
        for (unsigned i = 0; i < members; i++) turn.push_back(std::make_unique<semaphore>());
        unsigned passed = 0;  // by whoever has the token
        s.run([&] {
            std::vector<fiber> all;
            for (unsigned i = 0; i < members; i++) {
                all.emplace_back(any_options(), [&, i] {
                    for (unsigned lap = 0; lap < laps; lap++) {
                        turn[i]->acquire();
                        passed++;
                        turn[(i + 1) % members]->release();
                    }
                });
            }
            turn[0]->release();
            for (fiber& f : all) f.join();
        });
        require(passed == members * laps, "a wake-up is never lost");
    }

    /// Between two turns of a ready fiber, every other has two at most.
    void starves_nobody() {
        basic_scheduler<Policy> s({.workers = 1, .seed = options_.seed});
        const unsigned n = 20, turns = options_.rounds;
        bool fair = true;
        s.run([&] {
            std::vector<unsigned> had(n, 0);
            std::vector<fiber> all;
            for (unsigned i = 0; i < n; i++) {
                all.emplace_back(any_options(), [&, i] {
                    std::vector<unsigned> before = had;
                    for (unsigned t = 0; t < turns; t++) {
                        had[i]++;
                        this_fiber::yield();
                        for (unsigned k = 0; t > 0 && k < n; k++) {
                            if (k != i && had[k] - before[k] > 2) fair = false;
                        }
                        before = had;
                    }
                });
            }
            for (fiber& f : all) f.join();
        });
        require(fair, "what is ready waits for two turns of each other at most");
    }

    check_options options_;
    std::mt19937_64 random_;
};

}  // namespace detail

/// @throws std::logic_error when the policy breaks a rule.
template <policy Policy>
void check_policy(const check_options& options = {}) {
    detail::policy_checker<Policy>(options).run();
}

}  // namespace xos::sched

#endif  // C++20
