// What the SYSCALL entry calls for a number that Linux does not have.
#include "libxos/vm/arenas/arena.hpp"
#include "libxos/vm/gateway.hpp"
#include "libxos/vm/views/services.hpp"
#include "libxos/vm/views/spaces.hpp"

extern "C" {
/// Kernel-side services, by gateway number.
extern const void* const xos_gateway_calls[XOS_GATEWAY_COUNT] = {
#define XOS_GATEWAY(name, function) reinterpret_cast<const void*>(&xos::vm::function),
#include "libxos/vm/gateway.def"
#undef XOS_GATEWAY
};
}
