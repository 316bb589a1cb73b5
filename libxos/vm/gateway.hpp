// The numbers of the services in gateway.def: XOS_GATEWAY_BASE + n.
#pragma once

#include "libxos/arch/guest_layout.h"

namespace xos::vm {

enum gateway : unsigned {
#define XOS_GATEWAY(name, function) gateway_##name,
#include "libxos/vm/gateway.def"
#undef XOS_GATEWAY
    gateway_end
};
static_assert(gateway_end <= XOS_GATEWAY_COUNT);

}  // namespace xos::vm
