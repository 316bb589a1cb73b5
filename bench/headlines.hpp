// The rows that a reader sees first.
#pragma once

#include "bench/harness.hpp"

namespace xos::bench {

/// What one operation of that row is, in a reader's words; null for a row that is not among them.
const char* headline_of(const benchmark& b);

}  // namespace xos::bench
