// What the interfaces of the library (the C++ API, the preload) share: connecting the layers.
#pragma once

#include <cstddef>

#include "libxos/cell/cell.hpp"

namespace xos::api {

/// start() with every layer's hooks. Uses no libc.
base::outcome start_runtime(const cell::start_options& options);

/// Implements cell_state::call_handler_outside.
void call_handler_outside(void (*handler)(int, void*, void*), int signal, void* info,
                          void* context);

/// Whether the caller is in a signal handler that the trampoline called on a thread outside the
/// cell.
bool in_signal_handler() noexcept;

std::size_t frame_arena_bytes();

}  // namespace xos::api
