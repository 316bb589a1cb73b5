// The kernel module makes calls inside KVM_RUN (docs/module.md). What it leaves over takes an exit.
#include "libxos/forward/arguments.hpp"
#include "libxos/forward/transports.hpp"

namespace xos::forward {

using cell::the_cell;

namespace {

base::outcome attach() {
    auto& cell = the_cell;
    auto& module = cell.calls.module;
    auto failed =
        module.attach(cell.descriptors, cell.machine, cell.contexts.most, cell.calls.module_calls);
    if (failed.ok() && cell.guard.length) {
        failed = cell::guard_calls();
        if (!failed.ok()) module.detach(cell.descriptors);
    }
    return failed;
}

}  // namespace

constinit const cell::call_transport module_transport = {transport::module, attach, call_by_exit,
                                                         calls_by_exit};

}  // namespace xos::forward
