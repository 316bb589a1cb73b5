// What the preload library and the loader share: both run unmodified programs.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::api {

/// The status of `env` and `nice` when they themselves fail.
inline constexpr int own_failure = 125;

[[noreturn]] void give_up(const char* what, const char* advice, int error,
                          int status = own_failure);

struct wishes {
    /// Every thread of the program is inside, and the program does not know of libxos.
    cell::start_options options{.serve_break = true, .native_children = true};
    const char *statistics = nullptr, *trace = nullptr;
};

/// Reads the XOS_ variables: how to start the cell, and options for programs in it. Ends the
/// process with a message if one is invalid.
wishes wishes_from(char** environment);

/// Starts the cell and what goes with it; the calling thread stays outside. On failure ends the
/// process; if the process should continue outside instead, prints a message and returns false.
bool start_cell(const wishes& w);

/// On success the caller continues in the guest.
void enter_cell();

}  // namespace xos::api
