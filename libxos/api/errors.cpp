#include "libxos/api/errors.hpp"

#include <cerrno>
#include <system_error>

#include "libxos/cell/failure_text.hpp"

namespace xos::api {

std::string explain(base::outcome failure) {
    const auto t = cell::text_of(failure);
    std::string s = t.what;
    if (*t.advice) s += std::string("; ") + t.advice;
    return s;
}

void raise(base::outcome failure) {
    throw std::system_error(failure.error ? failure.error : EIO, std::generic_category(),
                            "xos: " + explain(failure));
}

void raise(int error, const char* what) {
    throw std::system_error(error, std::generic_category(), std::string("xos: ") + what);
}

}  // namespace xos::api
