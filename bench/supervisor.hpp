// Rows are measured in a child. One that crashes or hangs takes nothing but itself along.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/harness.hpp"

namespace xos::bench {

/// What happens to a row, in this process.
struct row_events {
    std::function<void(std::size_t)> begins;
    std::function<void(std::size_t, const std::string& line)> ended;
    std::function<void(std::size_t, const std::string& why)> failed;
};

/// `measure` measures the row of that number in a child and returns a line about it; it may throw, and
/// may print. The next row runs in the same child, unless that has died, or has been killed because
/// the row took more than so many seconds.
/// @returns false if SIGINT or SIGTERM ended it early. What has ended by then is told.
bool run_rows(std::size_t rows, const std::function<std::string(std::size_t)>& measure,
              unsigned row_seconds, const row_events& events);

}  // namespace xos::bench
