// A call leaves the guest by an exit, and its thread makes it in host mode.
#include "libxos/forward/arguments.hpp"
#include "libxos/forward/transports.hpp"

namespace xos::forward {

namespace {

base::outcome attach() {
    return base::success;
}

}  // namespace

constinit const cell::call_transport exit_transport = {transport::exit, attach, call_by_exit,
                                                       calls_by_exit};

}  // namespace xos::forward
