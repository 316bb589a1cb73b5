// What an emulated machine with one processor does between two moments, by its own accounts. The
// counter also counts the time that the processor is idle, because the emulators let it jump to the
// next timer; Linux knows that time to the nanosecond, and it is taken off.
#pragma once

#include <sys/types.h>

#include <cstdint>

namespace xos::bench {

class machine_account {
  public:
    /// @throws std::runtime_error where Linux does not tell how long the processor is idle
    machine_account();

    /// Instructions since then: all, and of them those in the name of this process.
    struct sums {
        double all, own;
    };
    sums so_far() const;

  private:
    std::int64_t idle_, own_, time_;
    std::uint64_t ticks_;
};

/// Page faults that Linux has served for a process.
std::uint64_t faults_of(pid_t pid);

}  // namespace xos::bench
