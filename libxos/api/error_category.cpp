#include <string>
#include <xos/error.hpp>

namespace xos {

namespace {

struct meaning {
    const char* text;
    std::errc like;
};

meaning meaning_of(errc e) {
    switch (e) {
        case errc::no_kvm:
            return {"no KVM", std::errc::no_such_file_or_directory};
        case errc::kvm_not_permitted:
            return {"KVM not permitted", std::errc::permission_denied};
        case errc::kvm_without_driver:
            return {"KVM without a driver", std::errc::no_such_device};
        case errc::kvm_unusable:
            return {"KVM unusable", std::errc::io_error};
        case errc::kvm_too_old:
            return {"KVM too old", std::errc::function_not_supported};
        case errc::processor_lacks_feature:
            return {"processor lacks a feature", std::errc::function_not_supported};
        case errc::kvm_refused:
            return {"refused by KVM", std::errc::io_error};
        case errc::mode_unavailable:
            return {"mode unavailable", std::errc::operation_not_supported};
        case errc::clock_unusable:
            return {"clock unusable", std::errc::operation_not_supported};
        case errc::no_module:
            return {"no kernel module", std::errc::no_such_file_or_directory};
        case errc::module_not_permitted:
            return {"kernel module not permitted", std::errc::permission_denied};
        case errc::module_unusable:
            return {"kernel module unusable", std::errc::io_error};
        case errc::no_descriptors:
            return {"no descriptor left", std::errc::too_many_files_open};
        case errc::no_memory:
            return {"no memory left", std::errc::not_enough_memory};
        case errc::no_room:
            return {"a table is full", std::errc::no_space_on_device};
        case errc::no_process:
            return {"no process left", std::errc::resource_unavailable_try_again};
        case errc::no_vcpu:
            return {"no vCPU left", std::errc::resource_unavailable_try_again};
        case errc::inside_a_cell:
            return {"in a cell already", std::errc::operation_not_supported};
        case errc::bad_argument:
            return {"bad argument", std::errc::invalid_argument};
        case errc::already_started:
            return {"already started", std::errc::connection_already_in_progress};
        case errc::not_started:
            return {"not started", std::errc::operation_not_permitted};
        case errc::already_inside:
            return {"already inside", std::errc::connection_already_in_progress};
        case errc::not_inside:
            return {"not inside", std::errc::operation_not_permitted};
        case errc::in_signal_handler:
            return {"in a signal handler", std::errc::device_or_resource_busy};
        case errc::in_fault_handler:
            return {"in a fault handler", std::errc::device_or_resource_busy};
        case errc::in_host_call:
            return {"in a host call", std::errc::device_or_resource_busy};
        case errc::range_taken:
            return {"range taken", std::errc::file_exists};
        case errc::already_separated:
            return {"already separated", std::errc::device_or_resource_busy};
        case errc::not_submitted:
            return {"not submitted", std::errc::operation_in_progress};
        case errc::made_before_fork:
            return {"made before the fork", std::errc::operation_not_permitted};
        case errc::other_thread:
            return {"of another thread", std::errc::operation_not_permitted};
    }
    return {"unknown", std::errc::io_error};
}

class category final : public std::error_category {
  public:
    const char* name() const noexcept override { return "xos"; }
    std::string message(int code) const override {
        return meaning_of(static_cast<errc>(code)).text;
    }
    std::error_condition default_error_condition(int code) const noexcept override {
        return meaning_of(static_cast<errc>(code)).like;
    }
};

}  // namespace

const std::error_category& error_category() noexcept {
    static const category the_category;
    return the_category;
}

}  // namespace xos
