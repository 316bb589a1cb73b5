// What libxos throws.
//
// Functions that throw throw std::system_error. Its code is one of libxos's own, so that a caller
// need not know which system call has failed. Its text says what is wrong and what to do.
//
//     try {
//         xos::start();
//     } catch (const std::system_error& e) {
//         if (e.code() == xos::errc::kvm_not_permitted) explain_groups();
//         if (e.code() == std::errc::permission_denied) explain_groups();  // the same, portably
//         std::fprintf(stderr, "%s; going on without a cell\n", e.what());
//     }
//
// `e.code().default_error_condition().value()` is the errno that comes closest; it is given here in
// brackets. Functions that return a result (`xos/vm.hpp`) throw nothing.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <system_error>
#include <type_traits>

namespace xos {

enum class errc {
    // ---- the machine: start(), and enter() where it starts the cell or makes it anew after a fork

    /// (ENOENT) /dev/kvm does not exist. Load kvm_intel or kvm_amd, enable virtualization in the
    /// firmware or, in a virtual machine, nested virtualization.
    no_kvm = 1,
    /// (EACCES) The user may not open /dev/kvm. Add the user to the group that owns it.
    kvm_not_permitted,
    /// (ENODEV) No driver is behind /dev/kvm. Load kvm_intel or kvm_amd.
    kvm_without_driver,
    /// (EIO) /dev/kvm is not KVM's device, or speaks another version of its API than 12.
    kvm_unusable,
    /// (ENOSYS) KVM lacks something that libxos needs. Use Linux 5.9 or newer.
    kvm_too_old,
    /// (ENOSYS) The processor lacks FSGSBASE or XSAVE, or Linux keeps them off.
    processor_lacks_feature,
    /// (EIO) KVM refused to make a virtual machine, a vCPU or a memory slot, or to set a register.
    /// The text has KVM's errno; dmesg and `xos doctor` may know more.
    kvm_refused,
    /// (EOPNOTSUPP) This machine has no such mode. Use mode::automatic.
    mode_unavailable,
    /// (EOPNOTSUPP) A vCPU's time stamp counter differs from the host's. Use a host whose counter
    /// is constant.
    clock_unusable,
    /// (ENOENT) transport::module, and /dev/xos does not exist. Load the kernel module.
    no_module,
    /// (EACCES) transport::module, and the user may not use /dev/xos.
    module_not_permitted,
    /// (EIO) transport::module, and the module is of another version or refuses the VM.
    module_unusable,

    // ---- resources

    /// (EMFILE) No descriptor is left, of the process or of the system. Raise RLIMIT_NOFILE.
    no_descriptors,
    /// (ENOMEM) No memory or address space is left, or nothing of the system arena. Raise RLIMIT_AS
    /// or cell_options::system_arena, or use less.
    no_memory,
    /// (ENOSPC) A table of libxos's or KVM's is full: handlers, arenas, spaces, memory slots,
    /// guest-physical addresses. The text says which.
    no_room,
    /// (EAGAIN) Linux lets the user make no further process or thread. Raise RLIMIT_NPROC, or the
    /// limit of the container (pids.max).
    no_process,
    /// (EAGAIN) Every vCPU is in use. Raise cell_options::max_vcpus, or have fewer threads inside.
    no_vcpu,

    // ---- wrong calls

    /// (EOPNOTSUPP) The process runs under `xos run` already, and a cell cannot hold another.
    inside_a_cell,
    /// (EINVAL) An argument or option is out of range. The text says which.
    bad_argument,
    /// (EALREADY) start() was called a second time.
    already_started,
    /// (EPERM) The call needs a cell. Call start() first.
    not_started,
    /// (EALREADY) enter() was called inside.
    already_inside,
    /// (EPERM) The call can only be made inside. Call enter() first.
    not_inside,
    /// (EBUSY) start() or enter() was called in a signal handler or on its alternate stack.
    in_signal_handler,
    /// (EBUSY) leave() was called in a fault handler.
    in_fault_handler,
    /// (EBUSY) enter() was called in a host_call().
    in_host_call,
    /// (EEXIST) A handler for a part of the range is registered already.
    range_taken,
    /// (EBUSY) The space has separated this view already.
    already_separated,
    /// (EINPROGRESS) The result of a call of a batch was asked for before submit(), or after
    /// clear().
    not_submitted,
    /// (EPERM) An io_queue or a future of it was used in a forked child. Make a queue in the child.
    made_before_fork,
    /// (EPERM) An io_queue or a future of it was used by a thread that has not made it.
    other_thread,
};

/// The category of these codes. Its name is "xos".
[[nodiscard]] const std::error_category& error_category() noexcept;

[[nodiscard]] inline std::error_code make_error_code(errc e) noexcept {
    return {static_cast<int>(e), error_category()};
}

}  // namespace xos

template <>
struct std::is_error_code_enum<xos::errc> : std::true_type {};

#endif  // C++20
