#include <linux/resource.h>

#include <cerrno>
#include <cstdint>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/failure_text.hpp"

namespace xos::cell {

using base::step;

namespace {

constexpr failure_text no_thread{
    "no thread is left for KVM, which needs one to begin",
    "raise the limit of processes (ulimit -u, or pids.max of the control group, which systemd "
    "calls TasksMax)"};

bool is_limited(unsigned resource) {
    std::uint64_t limit[2] = {~std::uint64_t{0}, 0};
    base::raw_syscall(__NR_prlimit64, 0, resource, 0, base::as_long(limit));
    return limit[0] != ~std::uint64_t{0};
}

/// Names the limit that Linux's ENOMEM is about, as far as one can tell.
const char* memory_advice() {
    const bool space = is_limited(RLIMIT_AS), data = is_limited(RLIMIT_DATA);
    if (space && data)
        return "raise RLIMIT_AS (ulimit -v) and RLIMIT_DATA (ulimit -d), or let libxos take less: "
               "--mem of `xos run`, smaller arenas in cell_options";
    if (data)
        return "raise RLIMIT_DATA (ulimit -d), or let libxos take less: --mem of `xos run`, "
               "smaller arenas in cell_options";
    if (space)
        return "raise RLIMIT_AS (ulimit -v), or let libxos take less: --mem of `xos run`, smaller "
               "arenas in cell_options";
    return "let libxos take less: --mem of `xos run`, smaller arenas in cell_options; if that does "
           "not help, see vm.overcommit_memory and vm.max_map_count";
}

}  // namespace

failure_text text_of(base::outcome failure) {
    const int error = failure.error;
    switch (failure.where) {
        case step::none:
            return {"nothing failed", ""};
        case step::open_kvm:
            switch (error) {
                case ENOENT:
                    return {"/dev/kvm does not exist",
                            "load kvm_intel or kvm_amd, enable virtualization in the firmware, or, "
                            "in a "
                            "virtual machine, enable nested virtualization"};
                case EACCES:
                case EPERM:
                    return {"no permission to open /dev/kvm",
                            "add the user to the group that owns it (usually kvm) and log in "
                            "again; in a "
                            "container, let the device in"};
                case ENODEV:
                case ENXIO:
                    return {"/dev/kvm exists, but no driver is behind it",
                            "load kvm_intel or kvm_amd"};
                case EMFILE:
                case ENFILE:
                    return {"no file descriptor left for /dev/kvm",
                            "raise RLIMIT_NOFILE (ulimit -n)"};
                default:
                    return {"/dev/kvm cannot be opened", "see the error"};
            }
        case step::not_kvm:
            return {"/dev/kvm is not KVM's device", "make it anew: a character device, 10:232"};
        case step::api_version:
            return {"/dev/kvm speaks another version of the KVM API", "libxos needs version 12"};
        case step::capability_sync_regs:
            return {"this KVM lacks KVM_CAP_SYNC_REGS", "use Linux 4.17 or newer"};
        case step::capability_immediate_exit:
            return {"this KVM lacks KVM_CAP_IMMEDIATE_EXIT", "use Linux 4.13 or newer"};
        case step::capability_user_memory:
            return {"this KVM lacks KVM_CAP_USER_MEMORY", "use an x86-64 host"};
        case step::no_fsgsbase:
            return {"the processor has no FSGSBASE instructions, or Linux keeps them off",
                    "use Linux 5.9 or newer on a processor of 2013 or later, without nofsgsbase"};
        case step::no_xsave:
            return {"Linux has not enabled XSAVE", "boot without noxsave"};
        case step::reserve_memory:
            return {"address space for libxos could not be reserved", memory_advice()};
        case step::create_vm:
            if (error == EMFILE) {
                return {"no file descriptor left for the VM", "raise RLIMIT_NOFILE (ulimit -n)"};
            }
            if (error == EAGAIN) return no_thread;
            return {"KVM could not create a VM",
                    "another hypervisor may hold the processor's virtualization; see dmesg"};
        case step::create_vcpu:
            if (error == EMFILE) {
                return {"no file descriptor left for a vCPU", "raise RLIMIT_NOFILE (ulimit -n)"};
            }
            return {"KVM could not create a vCPU", "see dmesg and `xos doctor`"};
        case step::map_vcpu:
            return {"kvm_run could not be mapped", memory_advice()};
        case step::first_run:
            return no_thread;
        case step::set_cpuid:
            return {"KVM refused its own CPUID", "see dmesg"};
        case step::set_registers:
            return {"KVM refused the vCPU's control registers", "see `xos doctor`"};
        case step::set_xcr0:
            return {"KVM refused the extended state (XCR0) of this process", "see `xos doctor`"};
        case step::set_msr:
            return {"KVM refused the system-call registers", "see `xos doctor`"};
        case step::tsc_offset:
            return {"the vCPU's clock differs from the host's", "use a host with a constant TSC"};
        case step::memory_slot:
            return {"KVM refused a memory slot",
                    error == ENOSPC ? "the process uses too many distant address ranges"
                                    : "see dmesg; on a software KVM a slot costs kernel memory"};
        case step::physical_address_space:
            return {"the guest-physical address space of this machine is used up",
                    "use fewer or smaller arenas"};
        case step::page_tables:
            return {"the arena for page tables is full", "raise cell_options::system_arena"};
        case step::probe_ring0:
            return {"a loop at guest ring 0 did not run",
                    "see `xos doctor`; mode pvm may still work"};
        case step::mode_needs_hardware:
            return {
                "ring0 and ring3 need hardware virtualization (VMX or SVM): this /dev/kvm is a "
                "software KVM that interprets ring 0, some thousand times slower than the "
                "processor",
                "use mode auto or pvm here"};
        case step::mode_needs_software_kvm:
            return {
                "pvm is for software KVMs only: on VMX or SVM a system call at CPL 3 changes to "
                "ring 0, which pvm does not expect",
                "use mode auto, ring0 or ring3 here"};
        case step::too_many_vcpus:
            return {"no vCPU is left", "raise cell_options::max_vcpus, or let fewer threads enter"};
        case step::already_started:
            return {"the cell has been started already", "call start() once"};
        case step::on_alternate_stack:
            return {"enter() called on the alternate signal stack",
                    "enter from ordinary code, not from a signal handler"};
        case step::open_module:
            switch (error) {
                case ENOENT:
                    return {"the kernel module is not loaded: /dev/xos does not exist",
                            "load it (modprobe xos, or insmod kmod/xos.ko after make kmod), or use "
                            "transport auto or exit"};
                case EACCES:
                    return {"no permission to open /dev/xos",
                            "install kmod/99-xos.rules and add the user to the group kvm, or use "
                            "transport auto or exit"};
                case EPERM:
                    return {"the kernel module refuses to work on a locked-down kernel",
                            "use transport auto or exit"};
                default:
                    return {"/dev/xos cannot be opened", "use transport auto or exit"};
            }
        case step::module_version:
            return {"the kernel module speaks another version of its interface than this library",
                    "build and load the module of this libxos (make kmod), or use transport auto "
                    "or exit"};
        case step::attach_module:
            return {"the kernel module could not be attached to the VM",
                    "see dmesg; transport auto or exit works without it"};
        case step::inside_a_cell:
            return {"this process is in a cell already, and a cell cannot hold another",
                    "start the program without `xos run`, or from one with --follow=none; under "
                    "`xos run` it needs no cell of its own"};
        case step::bad_option:
            return {"a cell_options value is out of range",
                    "max_vcpus must be at least 1 and system_arena hold 52 MiB and 100 KiB a vCPU"};
    }
    return {"unknown failure", ""};
}

}  // namespace xos::cell
