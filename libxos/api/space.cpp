#include <cerrno>
#include <xos/cell.hpp>
#include <xos/space.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/api/gateway.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views/views.hpp"
#include "libxos/vm/views/services.hpp"

namespace xos {

using api::gateway_call;

namespace {

long checked(long result, const char* what) {
    switch (-result) {
        case ENOMEM:
            api::raise(errc::no_memory, what);
        case ENOSPC:
            api::raise(errc::no_room, what);
        case EBUSY:
            api::raise(errc::already_separated, what);
        case EINVAL:
            api::raise(errc::bad_argument, what);
        case ENOSYS:
            api::raise(errc::not_inside, what);
        default:
            return result;
    }
}

bool on_handler_stack() {
    const arch::guest_area& area = *arch::current_area();
    const auto here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
    return here - area.trap_stack_base < area.trap_stack_size;
}

}  // namespace

space::space() {
    if (!inside()) api::raise(errc::not_inside, "a space can only be made inside");
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
    const long at = static_cast<long>(page.value);
    const bool direct = !cell::the_cell.is_ring3() && on_handler_stack();
    return static_cast<vm::map_result>(direct ? vm::copy_on_write_directly(at)
                                              : gateway_call(vm::gateway_copy_on_write, at));
}

}  // namespace xos
