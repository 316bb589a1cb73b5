#include <system_error>
#include <xos/cell.hpp>
#include <xos/view.hpp>

#include "libxos/api/errors.hpp"
#include "libxos/api/gateway.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/vm/views/views.hpp"
#include "libxos/vm/views/services.hpp"

namespace xos {

using api::gateway_call;

namespace {

/// Called inside the guest.
void remove_mappings(const vm::view& v, view::frames mapped) {
    // The thread's current space may have tables of its own there.
    const long space = gateway_call(vm::gateway_space_switch, 0);
    // Works in stretches, so that signals and other editors do not wait for all of it.
    const std::uint64_t stretch = std::uint64_t{1} << (v.fine_shift + 18);
    for (std::uint64_t at = 0; at < v.length; at += stretch) {
        const vm::edit all{.kind = vm::edit_kind::unmap,
                           .allowed = vm::access::none,
                           .largest = 1,
                           .option = mapped == view::frames::freed,
                           .begin = v.begin + at,
                           .length = v.length - at < stretch ? v.length - at : stretch,
                           .target = 0};
        vm::edit_request r{&all, 1, 0};
        gateway_call(vm::gateway_commit, reinterpret_cast<long>(&r));
    }
    if (space) gateway_call(vm::gateway_space_switch, space);
}

}  // namespace

view::view(std::size_t bytes, vm::leaf smallest, frames at_the_end)
    : bytes_(bytes), frames_(at_the_end) {
    if (at_the_end == frames::freed && smallest != vm::leaf::page_4k)
        api::raise(errc::bad_argument,
                   "a view whose frames are to be freed must have 4 KiB leaves");
    begin_ = vm::reserve(bytes, smallest);
}

void view::reset() noexcept {
    if (!bytes_) return;
    const vm::view& v = *vm::the_views.find(std::exchange(begin_, {}));
    bytes_ = 0;
    if (inside()) {
        remove_mappings(v, frames_);
    } else {
        try {
            const scoped_entry moment;
            remove_mappings(v, frames_);
        } catch (const std::system_error&) {
            return;
        }
    }
    host_call([&v] { vm::give_back_view(v); });
}

}  // namespace xos
