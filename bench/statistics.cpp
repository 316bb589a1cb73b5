#include "bench/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>

namespace xos::bench {

double median(std::vector<double> values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
}

interval bootstrap(const std::vector<double>& linux_rounds, const std::vector<double>& xos_rounds,
                   double (*of)(std::vector<double>)) {
    constexpr std::size_t draws = 1000;
    const std::size_t rounds = linux_rounds.size();
    std::mt19937_64 random(1);
    std::vector<double> ratios, a(rounds), b(rounds);
    for (std::size_t draw = 0; draw < draws; draw++) {
        for (std::size_t i = 0; i < rounds; i++) {
            const std::size_t round = random() % rounds;
            a[i] = linux_rounds[round];
            b[i] = xos_rounds[round];
        }
        if (const double ours = of(b); ours > 0) ratios.push_back(of(a) / ours);
    }
    if (ratios.empty()) return {0, 0};
    std::sort(ratios.begin(), ratios.end());
    const std::size_t tail = ratios.size() / 40;
    return {ratios[tail], ratios[ratios.size() - 1 - tail]};
}

double drift(const std::vector<double>& rounds) {
    const auto middle = rounds.begin() + static_cast<std::ptrdiff_t>(rounds.size() / 2);
    if (middle == rounds.begin()) return 0;
    const double first = median({rounds.begin(), middle});
    return first > 0 ? std::abs(median({middle, rounds.end()}) / first - 1) : 0;
}

}  // namespace xos::bench
