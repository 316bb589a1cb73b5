// What the two faces for unmodified programs (the preload library, the loader) have in common.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::api {

/// The status of `env` and `nice` when they themselves fail.
inline constexpr int own_failure = 125;

[[noreturn]] void give_up(const char* what, const char* advice, int error,
                          int status = own_failure);

/// The XOS_ variables: how to start the cell, and in the_cell what is to be done later. Ends the
/// process with a sentence when one is wrong.
cell::cell_options options_from(char** environment);

/// Starts the cell and what goes with it, with the calling thread outside. Ends the process where
/// that fails.
void start_cell(const cell::cell_options& options);

/// On success the caller goes on in the guest.
void enter_cell();

}  // namespace xos::api
