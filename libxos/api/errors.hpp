// Failures as exceptions whose text says what to do.
#pragma once

#include <string>
#include <xos/error.hpp>

#include "libxos/base/outcome.hpp"

namespace xos::api {

/// Explains what failed, why, and what to do about it, in one or two sentences.
std::string explain(base::outcome failure);
errc code_of(base::outcome failure);

[[noreturn]] void raise(base::outcome failure);
[[noreturn]] void raise(errc code, const char* what);

}  // namespace xos::api
