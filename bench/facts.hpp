// What a run happened on.
#pragma once

#include <nlohmann/json.hpp>

namespace xos::bench {

/// Processor, memory, kernel and mitigations of the machine that this program runs on.
nlohmann::ordered_json facts_of_machine();

/// Version and commit of this program.
nlohmann::ordered_json facts_of_program();

}  // namespace xos::bench
