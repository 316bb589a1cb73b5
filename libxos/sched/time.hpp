// Deadlines as Linux takes them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <ctime>

namespace xos::sched::detail {

/// Linux refuses negative times.
inline timespec time_of(std::int64_t deadline) noexcept {
    deadline = std::max<std::int64_t>(deadline, 0);
    return {.tv_sec = deadline / 1'000'000'000, .tv_nsec = deadline % 1'000'000'000};
}

}  // namespace xos::sched::detail
