#include "bench/suites/machine_account.hpp"

#include <fmt/core.h>
#include <poll.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>

#include "bench/clock.hpp"

namespace xos::bench {

namespace {

std::int64_t nanoseconds(clockid_t clock) {
    timespec t{};
    clock_gettime(clock, &t);
    return t.tv_sec * std::int64_t{1'000'000'000} + t.tv_nsec;
}

/// /proc/stat has it only in hundredths of a second.
std::int64_t idle_nanoseconds() {
    std::int64_t sum = 0;
    std::ifstream list("/proc/timer_list");
    for (std::string line; std::getline(list, line);) {
        // A space stands before the colon only where the name leaves room for one.
        std::ranges::replace(line, ':', ' ');
        std::istringstream words(line);
        std::string name;
        std::int64_t value = 0;
        if (words >> name >> value && (name == ".idle_sleeptime" || name == ".iowait_sleeptime"))
            sum += value;
    }
    return sum;
}

/// A clock that stands still would count idle time as work.
void check_idle_account() {
    constexpr int milliseconds = 20;
    const std::int64_t before = idle_nanoseconds();
    poll(nullptr, 0, milliseconds);
    const std::int64_t idle = idle_nanoseconds() - before;
    // Reading the list takes some of it.
    if (idle < milliseconds * 500'000)
        throw std::runtime_error(fmt::format(
            "/proc/timer_list has {} ns of idle time in {} ms without work", idle, milliseconds));
}

}  // namespace

machine_account::machine_account() {
    check_idle_account();
    idle_ = idle_nanoseconds();
    own_ = nanoseconds(CLOCK_PROCESS_CPUTIME_ID);
    time_ = nanoseconds(CLOCK_MONOTONIC);
    ticks_ = ticks();
}

machine_account::sums machine_account::so_far() const {
    const auto spent = static_cast<double>(ticks() - ticks_);
    const auto time = static_cast<double>(nanoseconds(CLOCK_MONOTONIC) - time_);
    const auto own = static_cast<double>(nanoseconds(CLOCK_PROCESS_CPUTIME_ID) - own_);
    const auto idle = static_cast<double>(idle_nanoseconds() - idle_);
    // All of Linux's clocks follow the counter.
    return {spent * (1 - idle / time), spent * own / time};
}

std::uint64_t faults_of(pid_t pid) {
    std::ifstream file(fmt::format("/proc/{}/stat", pid));
    // The program's name, in parentheses, may hold anything.
    file.ignore(std::numeric_limits<std::streamsize>::max(), ')');
    std::string word;
    for (int field = 3; field < 10; field++) file >> word;
    std::uint64_t minor = 0, of_children = 0, major = 0;
    if (!(file >> minor >> of_children >> major))
        throw std::runtime_error("a server's faults cannot be read");
    return minor + major;
}

}  // namespace xos::bench
