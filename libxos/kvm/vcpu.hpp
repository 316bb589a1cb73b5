// One virtual CPU: its descriptor, its kvm_run page, its registers.
#pragma once

#include "libxos/arch/registers.hpp"
#include "libxos/kvm/call_device.hpp"
#include "libxos/kvm/machine.hpp"

namespace xos::kvm {

/// The state a vCPU starts with and keeps.
struct vcpu_setup {
    std::uint64_t cr3 = 0;
    bool tags_translations = false;           ///< CR4.PCIDE
    std::uint64_t idt = 0, gdt = 0, tss = 0;  ///< guest-virtual addresses
    std::uint64_t syscall_entry = 0;          ///< LSTAR
    std::uint64_t gs_base = 0, kernel_gs_base = 0;
    unsigned privilege = 0;  ///< 0 or 3: where the application runs
    bool kernel_at_ring0 =
        true;  ///< ports at CPL 3 are checked by the processor, not by a software KVM
};

class vcpu {
  public:
    base::outcome create(machine& owner, descriptor_set& descriptors, const capabilities& caps,
                         unsigned id);
    base::outcome prepare(const capabilities& caps, const vcpu_setup& setup);
    /// Runs KVM_RUN through the kernel module, where the module cannot reach KVM's port bus.
    void run_through(const call_device& calls, unsigned id);
    /// Unmaps kvm_run. After fork that page is still shared with the parent, which keeps writing to
    /// it.
    void forget(const capabilities& caps);

    bool exists() const { return number_ != 0; }
    int fd() const { return number_ - 1; }
    kvm_run& run_page() { return *run_; }
    std::uint64_t run_page_address() const { return reinterpret_cast<std::uint64_t>(run_); }

    /// KVM_RUN: 0, or -errno (-EINTR: a signal or immediate_exit; -EFAULT: Linux refused an
    /// access).
    long run();

    /// Reads the registers by ioctl: for the rare paths.
    arch::general_registers read_registers();
    /// Takes effect with the next run(). A pending OUT is not completed, because RIP moves away
    /// from it.
    void write_registers(const arch::general_registers& r);
    kvm_sregs read_special();
    /// Whether the next KVM_RUN begins with an exception whose delivery an exit interrupted.
    bool exception_in_flight();
    void write_fs(std::uint64_t base);
    /// Toggles CR4.PGE, which makes KVM forget this vCPU's translations.
    void toggle_global_pages();
    /// Sets another root, which forgets translations too.
    void write_root(gpa root);
    /// False when this KVM does not have the register.
    bool write_msr(std::uint32_t index, std::uint64_t value);
    void read_xsave(xsave_area& area);
    bool write_xsave(const xsave_area& area);

  private:
    base::outcome run_first();
    void write_special(kvm_sregs& s);

    int run_fd_ = -1;  ///< what run() asks: the vCPU itself, or the kernel module
    unsigned run_request_ = 0;
    std::uint64_t run_argument_ = 0;
    xos_run run_by_module_{};
    int number_ = 0;  ///< descriptor + 1: in zeroed memory the vCPU does not exist yet
    std::uint8_t tss_type_ = 0;
    kvm_run* run_ = nullptr;
};

}  // namespace xos::kvm
