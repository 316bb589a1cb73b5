// What a failed step means and what to do about it, in words.
#pragma once

#include "libxos/base/outcome.hpp"

namespace xos::cell {

struct failure_text {
    const char* what;
    const char* advice;
};

failure_text text_of(base::outcome failure);

}  // namespace xos::cell
