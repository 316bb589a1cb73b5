// Collecting and printing statistics without libc: the preload prints them as the process ends.
#pragma once

#include <cstddef>
#include <xos/stats.hpp>

#include "libxos/base/text.hpp"

namespace xos::api {

/// As in the JSON; the text has spaces for the underscores.
inline constexpr const char* exit_names[] = {"leave",     "system_call", "trap", "poll",
                                             "host_call", "kernel_call", "null", "signal",
                                             "refused",   "privileged",  "other"};
static_assert(sizeof exit_names / sizeof *exit_names == static_cast<unsigned>(exit_kind::count));
inline constexpr const char* path_names[] = {"exit", "emulated", "local", "module"};
static_assert(sizeof path_names / sizeof *path_names == static_cast<unsigned>(syscall_path::count));

void collect(statistics& s);

using sink = void (*)(const char* text, std::size_t length, void* to);
void describe(const statistics& s, sink out, void* to);

/// Anonymous memory of the process that libxos serves itself, in bytes.
struct memory_inside {
    std::uint64_t reserved = 0;  ///< addresses
    std::uint64_t usable = 0;    ///< as much as has been asked for so far, by large pieces
    std::uint64_t used = 0;
};
memory_inside collect_memory();

/// Holds every system call's row.
using json_line = base::text<65536>;
/// One JSON object and a newline. `why` the process is described now: "exit", "exec".
void describe_as_json(const statistics& s, const memory_inside& memory, const char* why,
                      json_line& out);

}  // namespace xos::api
