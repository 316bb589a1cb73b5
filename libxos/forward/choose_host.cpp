#include "libxos/forward/transports.hpp"

namespace xos::forward {

using cell::the_cell;

base::outcome choose_transport(transport wanted) {
    the_cell.calls.way = exit_transport;
    if (wanted == transport::exit) return exit_transport.attach();
    auto failed = module_transport.attach();
    if (failed.ok()) the_cell.calls.way = module_transport;
    return wanted == transport::module ? failed : base::success;
}

}  // namespace xos::forward
