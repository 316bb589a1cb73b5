// `xos doctor`: can a cell run here, how well, and what to do about what is missing.
#pragma once

#include <string>
#include <vector>
#include <xos/features.hpp>

#include "tools/xos/cell_costs.hpp"

namespace xos::tool {

enum class verdict_level : unsigned {
    ok,
    warn,  ///< a cell runs, but slower or with less
    fail,  ///< no cell runs
};

const char* name(verdict_level level);

struct finding {
    verdict_level level;
    std::string subject;
    std::string value;
    std::string advice;  ///< a sentence; empty when there is nothing to do
};

struct diagnosis {
    features machine;
    cell_measurement measured;  ///< incomplete and without a failure when no cell could be started
    std::vector<finding> findings;
    bool can_run = false;
};

diagnosis diagnose();

std::vector<finding> judge(const features& machine, const cell_measurement& measured);

/// Of one instruction at guest ring 0: timed inside where the application runs there.
double ring0_nanoseconds(const features& machine, const cell_measurement& measured);

std::string to_text(const diagnosis& d);
std::string to_json(const diagnosis& d);

}  // namespace xos::tool
