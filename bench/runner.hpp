// Measures one benchmark.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "bench/harness.hpp"
#include "bench/statistics.hpp"

namespace xos::bench {

struct plan {
    bench::unit unit = unit::time;
    unsigned rounds = 51;
    /// At least, in unit::time. Shorter than a time slice, so that most rounds have the processor
    /// throughout.
    std::uint64_t round_nanoseconds = 1'000'000;
};

/// Per operation, in the plan's unit.
struct distribution {
    double median, minimum, deviation;  ///< the median of the absolute deviations from the median
    double maximum;
    std::uint64_t operations;    ///< in a round
    std::vector<double> rounds;  ///< all of them, as they came
    double cpu;                  ///< nanoseconds of processor time; the median
};

struct other_result {
    const char* name;
    distribution way;
};

struct result {
    const benchmark* what;
    std::optional<distribution> linux_way;
    distribution xos_way;
    std::vector<other_result> others;  ///< what is available, as the benchmark lists it
    double exits;                      ///< per operation of libxos's way
    std::string remark, linux_remark;
    std::optional<interval> of_ratio;  ///< where there is a Linux way
};

class runner {
  public:
    explicit runner(const plan& p);

    /// The cell must not have been started for a benchmark that needs a child, and must have been
    /// for any other.
    /// @throws std::exception what setup(), enter() or a child had to say.
    result run(const benchmark& b) const;

  private:
    std::uint64_t length_of_round(const side& s, std::uint64_t counted) const;
    double in_unit(double ticks) const;

    plan plan_;
    double ticks_per_nanosecond_ = 1;
    std::uint64_t overhead_;  ///< ticks of a round that does nothing
};

/// The number the table shows.
double value_of(const distribution& d, unit u);

}  // namespace xos::bench
