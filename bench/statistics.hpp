// What the rounds of two sides say together.
#pragma once

#include <vector>

namespace xos::bench {

double median(std::vector<double> values);

/// Between these, 95 of 100 times.
struct interval {
    double low, high;
};

/// Of `of(linux) / of(xos)`, by a bootstrap: rounds are drawn with replacement, both sides of a round
/// together, because what disturbs a round disturbs both. The same rounds always have the same
/// interval. The sides have as many rounds, at least one.
interval bootstrap(const std::vector<double>& linux_rounds, const std::vector<double>& xos_rounds,
                   double (*of)(std::vector<double>));

/// By how much the median of the second half differs from that of the first, as a part of that.
double drift(const std::vector<double>& rounds);

}  // namespace xos::bench
