// A virtual machine: /dev/kvm, its capabilities, memory slots. Apart from api/features_kvm.cpp,
// which reports on it, nothing else opens /dev/kvm.
#pragma once

#include <xos/types.hpp>

#include "libxos/base/outcome.hpp"
#include "libxos/kvm/descriptors.hpp"
#include "libxos/kvm/kvm_api.hpp"

namespace xos::kvm {

/// What this kernel's KVM offers; probed once, the same for every VM.
struct capabilities {
    unsigned max_slots = 0;
    unsigned max_vcpus = 0;
    unsigned physical_bits = 0;
    unsigned run_size = 0;
    bool gigabyte_pages = false;
    bool process_context_ids = false;
    std::uint64_t xcr0 = 0;
    unsigned xsave_size = 0;
    cpuid_list cpuid;
    bool hardware = false;  ///< VMX or SVM; a KVM without either is a software KVM
    /// The first KVM_RUN of a VM adds a thread to the process that makes it.
    bool first_run_adds_thread = false;
};

class machine {
  public:
    /// Opens /dev/kvm, checks what is needed, creates the VM. The device stays open: after a fork,
    /// the process may have lost the right to open it, or may not see it any more.
    base::outcome create(descriptor_set& descriptors, capabilities& caps);
    void destroy(descriptor_set& descriptors);
    /// Leaves the VM to another process, which has the same descriptors.
    void forget() { fd_ = -1; }

    int fd() const { return fd_; }

    /// Adds a slot; its number is the number of slots before.
    base::outcome add_slot(gpa guest, hva host, std::uint64_t length);
    /// Has a slot serve other memory at the same guest-physical addresses. The guest must not map
    /// them. KVM drops every translation of the VM for this, so it is nothing for a hot path.
    base::outcome replace_slot(unsigned slot, gpa guest, hva host, std::uint64_t length);

    /// Has a process of its own, which shares this one's memory, add the slot, or remove it if
    /// `length` is 0. KVM waits until every vCPU has left a page fault that Linux is serving for it,
    /// and the calling thread may be the one that serves it. `request` must stay valid until that
    /// process has ended.
    struct slot_request {
        kvm_userspace_memory_region region;
        long result;  ///< in_progress until KVM has answered
        long process;
    };
    static constexpr long in_progress = 1;
    base::outcome begin_slot(slot_request& request, unsigned slot, gpa guest, hva host,
                             std::uint64_t length);
    /// To be called once there is a result.
    base::outcome end_slot(slot_request& request);
    unsigned slots() const { return slots_; }

    /// Whether a vCPU that has just been made is the first one.
    bool begins_with_it() {
        const bool first = !has_vcpu_;
        has_vcpu_ = true;
        return first;
    }

  private:
    int system_ = -1;
    int fd_ = -1;
    unsigned slots_ = 0;
    bool has_vcpu_ = false;
};

/// Opens /dev/kvm and fills `caps` without creating anything.
base::outcome probe_capabilities(capabilities& caps);

}  // namespace xos::kvm
