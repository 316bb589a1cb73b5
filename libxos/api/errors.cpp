#include "libxos/api/errors.hpp"

#include <cerrno>

#include "libxos/cell/failure_text.hpp"

namespace xos::api {

namespace {

/// The code for a resource that Linux, KVM or libxos itself has run out of.
errc shortage(int error, errc other) {
    switch (error) {
        case EMFILE:
        case ENFILE:
            return errc::no_descriptors;
        case ENOMEM:
            return errc::no_memory;
        case ENOSPC:
            return errc::no_room;
        case EAGAIN:
            return errc::no_process;
        case EINVAL:
            return errc::bad_argument;
        default:
            return other;
    }
}

errc of_kvm_device(int error) {
    switch (error) {
        case ENOENT:
            return errc::no_kvm;
        case EACCES:
        case EPERM:
            return errc::kvm_not_permitted;
        case ENODEV:
        case ENXIO:
            return errc::kvm_without_driver;
        case EMFILE:
        case ENFILE:
            return errc::no_descriptors;
        default:
            return errc::kvm_unusable;
    }
}

errc of_module(int error) {
    switch (error) {
        case ENOENT:
            return errc::no_module;
        case EACCES:
        case EPERM:
            return errc::module_not_permitted;
        default:
            return errc::module_unusable;
    }
}

}  // namespace

std::string explain(base::outcome failure) {
    const auto t = cell::text_of(failure);
    std::string s = t.what;
    if (*t.advice) s += std::string("; ") + t.advice;
    return s;
}

errc code_of(base::outcome failure) {
    using enum base::step;
    switch (failure.where) {
        case open_kvm:
            return of_kvm_device(failure.error);
        case not_kvm:
        case api_version:
            return errc::kvm_unusable;
        case capability_sync_regs:
        case capability_immediate_exit:
        case capability_user_memory:
            return errc::kvm_too_old;
        case no_fsgsbase:
        case no_xsave:
            return errc::processor_lacks_feature;
        case reserve_memory:
        case page_tables:
        case map_vcpu:
            return shortage(failure.error, errc::no_memory);
        case physical_address_space:
            return errc::no_room;
        case create_vm:
        case create_vcpu:
        case memory_slot:
            return failure.error == EINVAL ? errc::kvm_refused
                                           : shortage(failure.error, errc::kvm_refused);
        case set_cpuid:
        case set_registers:
        case set_xcr0:
        case set_msr:
        case probe_ring0:
            return errc::kvm_refused;
        case tsc_offset:
            return errc::clock_unusable;
        case mode_needs_hardware:
        case mode_needs_software_kvm:
            return errc::mode_unavailable;
        case first_run:
            return errc::no_process;
        case inside_a_cell:
            return errc::inside_a_cell;
        case too_many_vcpus:
            return errc::no_vcpu;
        case already_started:
            return errc::already_started;
        case bad_option:
            return errc::bad_argument;
        case on_alternate_stack:
            return errc::in_signal_handler;
        case open_module:
            return of_module(failure.error);
        case module_version:
        case attach_module:
            return errc::module_unusable;
        case none:
            break;
    }
    return errc::kvm_refused;
}

void raise(base::outcome failure) {
    const errc code = code_of(failure);
    std::string text = "xos: " + explain(failure);
    // These codes do not tell the reason, so errno is added.
    const bool says_nothing =
        code == errc::kvm_refused || code == errc::kvm_unusable || code == errc::module_unusable;
    if (says_nothing && failure.error) text += " (errno " + std::to_string(failure.error) + ")";
    throw std::system_error(code, text);
}

void raise(errc code, const char* what) {
    throw std::system_error(code, std::string("xos: ") + what);
}

}  // namespace xos::api
