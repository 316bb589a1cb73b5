// Collecting and printing statistics without libc: the preload prints them as the process ends.
#pragma once

#include <cstddef>
#include <xos/stats.hpp>

namespace xos::api {

void collect(statistics& s);

using sink = void (*)(const char* text, std::size_t length, void* to);
void describe(const statistics& s, sink out, void* to);

}  // namespace xos::api
