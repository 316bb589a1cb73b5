// /dev/xos: the kernel module that makes forwarded calls inside KVM_RUN (kmod/xos_uapi.h).
//
// A VM is attached once; then each vCPU names the frame from which its calls are read. Closing the
// descriptor does not detach: the attachment lasts as long as the VM.
#pragma once

#include "kmod/xos_uapi.h"
#include "libxos/kvm/machine.hpp"

namespace xos::kvm {

class call_device {
  public:
    /// Fails, and changes nothing, when there is no usable module. `calls` has XOS_CALLS words: what
    /// the kernel may make, and what it must look at before.
    base::outcome attach(descriptor_set& descriptors, const machine& owner, unsigned max_vcpus,
                         const std::uint32_t* calls);
    void detach(descriptor_set& descriptors);
    /// Leaves the device to another process, which has the same descriptors.
    void forget() { fd_ = -1; }

    bool attached() const { return fd_ >= 0; }
    /// The module could not reach the kernel's port bus: vCPUs must run through this device.
    bool runs_vcpus() const { return !(features_ & XOS_FEATURE_BUS); }
    int fd() const { return fd_; }

    /// Has the module ask the guest's page tables about memory in this range. Does nothing when not
    /// attached.
    base::outcome guard(const xos_guard& range) const;
    base::outcome add_vcpu(unsigned id, const xos_frame* frame);
    /// Sums of all vCPUs. False when not attached.
    bool read_statistics(xos_statistics& to) const;

  private:
    int fd_ = -1;
    unsigned features_ = 0;
};

}  // namespace xos::kvm
