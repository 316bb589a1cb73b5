#include <cerrno>
#include <xos/cell.hpp>
#include <xos/space.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/api/gateway.hpp"
#include "libxos/vm/views.hpp"

namespace xos {

using api::gateway_call;

namespace {

long checked(long result, const char* what) {
    if (result < 0) api::raise(static_cast<int>(-result), what);
    return result;
}

}  // namespace

space::space() {
    if (!inside()) api::raise(EPERM, "a space can only be made inside");
    number_ = checked(gateway_call(vm::gateway_space_make, 0), "no further address space");
}

space::~space() {
    gateway_call(vm::gateway_space_end, number_);
}

void space::separate(gva address, frames how) {
    checked(gateway_call(vm::gateway_space_separate, number_, static_cast<long>(address.value),
                         how == frames::copied_on_write),
            "the view cannot be separated");
}

space::inside_of::inside_of(const space& s)
    : previous_(checked(gateway_call(vm::gateway_space_switch, s.number_), "no such space")) {}

space::inside_of::~inside_of() {
    gateway_call(vm::gateway_space_switch, previous_);
}

vm::map_result copy_on_write(gva page) noexcept {
    return static_cast<vm::map_result>(
        gateway_call(vm::gateway_copy_on_write, static_cast<long>(page.value)));
}

}  // namespace xos
