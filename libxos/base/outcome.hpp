// The result of a set-up step in code that can neither throw nor allocate: what failed, and errno.
#pragma once

namespace xos::base {

enum class step : unsigned {
    none,
    open_kvm,
    not_kvm,
    api_version,
    capability_sync_regs,
    capability_immediate_exit,
    capability_user_memory,
    no_fsgsbase,
    no_xsave,
    reserve_memory,
    create_vm,
    create_vcpu,
    map_vcpu,
    first_run,
    set_cpuid,
    set_registers,
    set_xcr0,
    set_msr,
    tsc_offset,
    memory_slot,
    physical_address_space,
    page_tables,
    probe_ring0,
    mode_needs_hardware,
    mode_needs_software_kvm,
    too_many_vcpus,
    already_started,
    bad_option,
    on_alternate_stack,
    open_module,
    module_version,
    attach_module,
    inside_a_cell,
};

struct [[nodiscard]] outcome {
    step where = step::none;
    int error = 0;
    bool ok() const { return where == step::none; }
};

inline constexpr outcome success{};

}  // namespace xos::base
