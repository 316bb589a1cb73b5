// Records that a thread outside the cell is in a signal handler, where it must not enter.
#include <cstdint>

#include "libxos/api/runtime.hpp"

namespace xos::api {

namespace {

/// The stack address of the innermost running handler, or 0. A handler that longjmps out leaves the
/// address behind; the stack pointer is above it then.
[[gnu::tls_model("initial-exec")]] thread_local std::uint64_t handler_stack = 0;

}  // namespace

void call_handler_outside(void (*handler)(int, void*, void*), int signal, void* info,
                          void* context) {
    const std::uint64_t outer = handler_stack;
    handler_stack = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
    handler(signal, info, context);
    handler_stack = outer;
}

bool in_signal_handler() noexcept {
    return reinterpret_cast<std::uint64_t>(__builtin_frame_address(0)) < handler_stack;
}

}  // namespace xos::api
