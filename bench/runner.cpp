#include "bench/runner.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "bench/clock.hpp"
#include "bench/round.hpp"

namespace xos::bench {

namespace {

double minimum(std::vector<double> values) {
    return *std::min_element(values.begin(), values.end());
}

distribution describe(const std::vector<double>& values, std::uint64_t operations, double cpu) {
    const auto [least, most] = std::minmax_element(values.begin(), values.end());
    distribution d{median(values), *least, 0, *most, operations, values, cpu};
    std::vector<double> away;
    for (const double v : values) away.push_back(std::abs(v - d.median));
    d.deviation = median(away);
    return d;
}

/// What needs one processor stays on one, and so do the threads and processes that it makes.
class pinned {
  public:
    explicit pinned(const benchmark& b) {
        sched_getaffinity(0, sizeof before_, &before_);
        if (b.processors > 1) return;
        int last = CPU_SETSIZE - 1;
        while (last > 0 && !CPU_ISSET(last, &before_)) last--;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(last, &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    ~pinned() { sched_setaffinity(0, sizeof before_, &before_); }
    pinned(const pinned&) = delete;
    pinned& operator=(const pinned&) = delete;

  private:
    cpu_set_t before_{};
};

std::uint64_t round_overhead() {
    const side nothing{.where = place::outside, .run = [](std::uint64_t) {}};
    std::uint64_t least = ~std::uint64_t{0};
    for (int i = 0; i < 100; i++) least = std::min(least, run_round(nothing, 1).ticks);
    return least;
}

/// The rounds of one side.
struct series {
    const side* what;
    std::uint64_t operations;
    std::vector<double> ticks = {};  ///< per operation
    std::vector<double> cpu = {};    ///< nanoseconds of processor time, per operation
    double exits = 0;                ///< per operation, the last round's
    std::string remark = {};

    void add_round(std::uint64_t overhead) {
        take_remark();
        const round_result r = run_round(*what, operations);
        const std::uint64_t net = r.ticks - std::min(r.ticks, what->measure ? 0 : overhead);
        ticks.push_back(static_cast<double>(net) / static_cast<double>(operations));
        cpu.push_back(static_cast<double>(r.cpu) / static_cast<double>(operations));
        exits = static_cast<double>(r.exits) / static_cast<double>(operations);
        if (auto text = take_remark(); !text.empty()) remark = std::move(text);
    }
};

}  // namespace

runner::runner(const plan& p) : plan_(p), overhead_(round_overhead()) {
    if (plan_.unit == unit::time) ticks_per_nanosecond_ = bench::ticks_per_nanosecond();
}

double runner::in_unit(double ticks) const {
    return ticks / ticks_per_nanosecond_;
}

std::uint64_t runner::length_of_round(const side& s, std::uint64_t counted) const {
    if (s.where == place::child) return 1;
    std::uint64_t most = s.most;
    while (most + warm_up_of(most) > s.most && most > 1) most = most - most / 8 - 1;
    if (plan_.unit == unit::instructions) return std::min(counted, most);
    // The whole round counts, not only what `measure` counts of it: nobody waits for the
    // difference.
    // A process of its own takes tens of milliseconds to prepare: then more of it may count.
    const bool alone = s.where == place::own_process || s.where == place::own_cell;
    const double wanted =
        static_cast<double>(plan_.round_nanoseconds) * (alone ? 10 : 1) * ticks_per_nanosecond_;
    for (std::uint64_t n = 1;;) {
        const auto took = static_cast<double>(std::max<std::uint64_t>(run_round(s, n).ticks, 1));
        if (took >= wanted || n >= most) return std::min(n, most);
        n = std::min(most, static_cast<std::uint64_t>(static_cast<double>(n) *
                                                      std::clamp(1.2 * wanted / took, 1.5, 100.0)) +
                               1);
    }
}

result runner::run(const benchmark& b) const {
    const pinned here(b);
    std::vector<series> sides{{&b.xos_way, length_of_round(b.xos_way, b.counted_operations)}};
    if (b.linux_way)
        sides.push_back({&*b.linux_way, length_of_round(*b.linux_way, b.counted_operations)});
    std::vector<const alternative*> others;
    for (const auto& other : b.others) {
        if (other.available && !other.available()) continue;
        others.push_back(&other);
        sides.push_back({&other.way, length_of_round(other.way, b.counted_operations)});
    }
    for (unsigned round = 0; round < std::min(plan_.rounds, b.most_rounds); round++) {
        for (auto& s : sides) s.add_round(overhead_);
        std::reverse(sides.begin(), sides.end());
    }
    const auto series_of = [&](const side& what) -> const series& {
        const auto same = [&](const series& s) { return s.what == &what; };
        return *std::find_if(sides.begin(), sides.end(), same);
    };
    const auto distribution_of = [&](const side& what) {
        const series& s = series_of(what);
        std::vector<double> rounds;
        for (const double t : s.ticks) rounds.push_back(in_unit(t));
        return describe(rounds, s.operations, median(s.cpu));
    };
    const series& ours = series_of(b.xos_way);
    result r{&b, {}, distribution_of(b.xos_way), {}, ours.exits, ours.remark, {}, {}};
    if (b.linux_way) {
        r.linux_way = distribution_of(*b.linux_way);
        r.linux_remark = series_of(*b.linux_way).remark;
        r.of_ratio = bootstrap(r.linux_way->rounds, r.xos_way.rounds,
                               plan_.unit == unit::instructions ? minimum : median);
    }
    for (const auto* other : others) r.others.push_back({other->name, distribution_of(other->way)});
    return r;
}

double value_of(const distribution& d, unit u) {
    return u == unit::instructions ? d.minimum : d.median;
}

}  // namespace xos::bench
