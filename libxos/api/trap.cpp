#include <cerrno>
#include <xos/trap.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/trap/handlers.hpp"
#include "libxos/vm/views/views.hpp"

namespace xos {

namespace {

std::uint32_t flags_of(handler_registers registers) {
    return registers == handler_registers::general_only ? trap::handler_entry::general_only : 0;
}

}  // namespace

trap_registration on_exception(exception which, trap_handler handler, void* argument,
                               handler_registers registers) {
    unsigned id = 0;
    if (trap::add_vector(static_cast<unsigned>(which), {handler, argument, 0, flags_of(registers)},
                         id) != 0) {
        api::raise(errc::no_room, "no room for another exception handler (64 at most)");
    }
    return trap_registration(id);
}

trap_registration on_fault(gva begin, std::size_t length, trap_handler handler, void* argument,
                           handler_registers registers) {
    if (length == 0 || begin.value + length < begin.value) {
        api::raise(errc::bad_argument,
                   "on_fault() needs a range that is not empty and does not wrap around");
    }
    unsigned id = 0;
    std::uint32_t flags = flags_of(registers);
    if (vm::the_views.contains(begin, length)) flags |= trap::handler_entry::on_view;
    const int e =
        trap::add_range(begin.value, begin.value + length, {handler, argument, 0, flags}, id);
    if (e == EEXIST)
        api::raise(errc::range_taken, "a handler for part of this range is registered already");
    if (e) api::raise(errc::no_room, "no room for another range handler (64 at most)");
    return trap_registration(id);
}

void trap_registration::reset() noexcept {
    if (id_) trap::remove(id_);
    id_ = 0;
}

}  // namespace xos
