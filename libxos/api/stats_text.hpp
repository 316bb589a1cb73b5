// Collects and prints statistics without libc: the preload prints them as the process ends.
#pragma once

#include <cstddef>
#include <xos/stats.hpp>

#include "libxos/base/text.hpp"

namespace xos::api {

/// The names in the JSON; the text has spaces instead of underscores.
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
    std::uint64_t usable = 0;    ///< given to the allocator so far, in large pieces
    std::uint64_t used = 0;
};
memory_inside collect_memory();

/// Large enough for every system call's row.
using json_line = base::text<65536>;
/// Writes one JSON object and a newline. `why` says what the report is written for: "exit", "exec".
void describe_as_json(const statistics& s, const memory_inside& memory, const char* why,
                      json_line& out);

}  // namespace xos::api
