// What the two faces for unmodified programs (the preload library, the loader) have in common.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::api {

/// The status of `env` and `nice` when they themselves fail.
inline constexpr int own_failure = 125;

[[noreturn]] void give_up(const char* what, const char* advice, int error,
                          int status = own_failure);

struct wishes {
    /// Every thread of the program is inside, and does not know of libxos.
    cell::cell_options options{.serve_break = true, .native_children = true};
    const char *statistics = nullptr, *trace = nullptr;
};

/// The XOS_ variables: how to start the cell, and in the_cell what is to be done later. Ends the
/// process with a sentence when one is wrong.
wishes wishes_from(char** environment);

/// Starts the cell and what goes with it, with the calling thread outside. Where that fails, ends
/// the process; or, if the process is to go on outside then, says so and returns false.
bool start_cell(const wishes& w);

/// On success the caller goes on in the guest.
void enter_cell();

}  // namespace xos::api
