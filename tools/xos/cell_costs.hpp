// What crossings cost here: measured in a child process that becomes a cell.
#pragma once

#include <string>

namespace xos::tool {

/// Nanoseconds, medians of many.
struct cell_costs {
    double ring0_instruction = 0;  ///< 0: the application does not run at ring 0, features tell
    double empty_exit = 0;         ///< out of the guest and back in, nothing done
    double entry = 0;              ///< enter()
    double leave = 0;              ///< leave()
    double getppid = 0;            ///< a system call forwarded to Linux
    double getppid_by_vector = 0;  ///< the same, one of 64 that are forwarded at once
    double native_getppid = 0;     ///< the same outside the cell
    /// Entry and leave are differences of the time stamp counter between outside and inside. False:
    /// the two count differently, and only their sum is known (in `entry`; `leave` is 0).
    bool clocks_agree = true;
};

struct cell_measurement {
    bool complete = false;
    cell_costs costs;
    std::string mode, mode_reason;
    std::string failure;  ///< a sentence, when not complete
    std::string output;   ///< what the child wrote to its standard error
};

/// Never throws for what the child does; takes at most half a minute, usually a fraction of a
/// second.
cell_measurement measure_cell();

}  // namespace xos::tool
