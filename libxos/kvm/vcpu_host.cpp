#include <linux/mman.h>

#include "libxos/arch/cpu.hpp"
#include "libxos/arch/guest_layout.h"
#include "libxos/arch/segments.hpp"
#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/kvm/vcpu.hpp"

namespace xos::kvm {

using base::as_long;
using base::outcome;
using base::raw_syscall;
using base::step;

namespace {

kvm_segment segment(std::uint16_t selector, unsigned type, unsigned privilege, bool long_mode) {
    kvm_segment s;
    base::zero_bytes(&s, sizeof s);
    s.limit = 0xffffffff;
    s.selector = selector;
    s.type = static_cast<std::uint8_t>(type);
    s.present = 1;
    s.dpl = static_cast<std::uint8_t>(privilege);
    s.s = 1;
    s.g = 1;
    s.l = long_mode;
    s.db = !long_mode;
    return s;
}

long set_msr(int fd, std::uint32_t index, std::uint64_t value) {
    one_msr m;
    m.entry.index = index;
    m.entry.data = value;
    return raw_syscall(__NR_ioctl, fd, static_cast<long>(set_msrs), as_long(&m));
}

bool is_amd() {
    return arch::cpuid(0).ecx == 0x444d4163;
}  // "cAMD", the end of AuthenticAMD

/// The vDSO reads the TSC in the guest with the host's parameters, so both must count alike.
outcome align_tsc(int fd) {
    std::uint64_t zero = 0;
    kvm_device_attr attribute{};
    attribute.group = KVM_VCPU_TSC_CTRL;
    attribute.attr = KVM_VCPU_TSC_OFFSET;
    attribute.addr = reinterpret_cast<std::uint64_t>(&zero);
    if (raw_syscall(__NR_ioctl, fd, KVM_SET_DEVICE_ATTR, as_long(&attribute)) == 0)
        return base::success;
    // A KVM without the attribute (before Linux 5.16, or a software one) may have no offset anyway.
    one_msr guest;
    guest.entry.index = arch::msr::tsc;
    if (raw_syscall(__NR_ioctl, fd, static_cast<long>(get_msrs), as_long(&guest)) != 1) {
        return base::success;  // not virtualised at all: RDTSC is the host's
    }
    constexpr std::uint64_t tolerable =
        50'000'000;  // some 20 ms: the host's clock is never that late
    const std::uint64_t host = arch::read_tsc();
    const std::uint64_t difference =
        host > guest.entry.data ? host - guest.entry.data : guest.entry.data - host;
    if (difference < tolerable) return base::success;
    guest.entry.data = arch::read_tsc();
    if (raw_syscall(__NR_ioctl, fd, static_cast<long>(set_msrs), as_long(&guest)) == 1)
        return base::success;
    return {step::tsc_offset, base::error::opnotsupp};
}

}  // namespace

outcome vcpu::create(machine& owner, descriptor_set& descriptors, const capabilities& caps,
                     unsigned id) {
    const descriptor_set::room guard(descriptors);
    long made = raw_syscall(__NR_ioctl, owner.fd(), KVM_CREATE_VCPU, id);
    if (made >= 0) made = descriptors.adopt(static_cast<int>(made));
    if (made < 0) return {step::create_vcpu, static_cast<int>(-made)};
    number_ = static_cast<int>(made) + 1;
    run_fd_ = fd();
    run_request_ = KVM_RUN;
    run_argument_ = 0;
    long page =
        raw_syscall(__NR_mmap, 0, caps.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd(), 0);
    if (base::is_error(page)) return {step::map_vcpu, static_cast<int>(-page)};
    run_ = reinterpret_cast<kvm_run*>(page);
    long r = raw_syscall(__NR_ioctl, fd(), static_cast<long>(set_cpuid), as_long(&caps.cpuid));
    if (r < 0) return {step::set_cpuid, static_cast<int>(-r)};
    return owner.begins_with_it() && caps.first_run_adds_thread ? run_first() : base::success;
}

outcome vcpu::prepare(const capabilities& caps, const vcpu_setup& setup) {
    kvm_sregs s = read_special();
    const unsigned cpl = setup.privilege;
    s.cs = segment(cpl ? arch::selector::user_code : arch::selector::kernel_code, 11, cpl, true);
    const auto data =
        segment(cpl ? arch::selector::user_data : arch::selector::kernel_data, 3, cpl, false);
    s.ss = s.ds = s.es = data;
    s.fs = s.gs = segment(0, 3, cpl, false);
    s.gs.base = setup.gs_base;
    s.gdt.base = setup.gdt;
    s.gdt.limit = sizeof(arch::descriptor_tables::gdt) - 1;
    s.idt.base = setup.idt;
    s.idt.limit = 32 * sizeof(arch::idt_gate) - 1;
    // VMX demands a busy TSS. SVM does not care, but QEMU's emulation of it finds the I/O bitmap
    // only through an available one (check_io in its target/i386/tcg).
    constexpr unsigned available = 9, busy = 11;
    const bool svm = setup.privilege == 3 && setup.kernel_at_ring0 && is_amd();
    tss_type_ = svm ? available : busy;
    s.tr = segment(arch::selector::task_state, tss_type_, 0, false);
    s.tr.base = setup.tss;
    s.tr.limit = sizeof(arch::task_state_segment) - 1;
    s.tr.s = s.tr.g = s.tr.db = 0;
    s.ldt.unusable = 1;
    s.cr0 = arch::cr0::long_mode;
    s.cr3 = setup.cr3;
    s.cr4 = arch::cr4::pae | arch::cr4::pge | arch::cr4::osfxsr | arch::cr4::osxmmexcpt |
            arch::cr4::fsgsbase | arch::cr4::osxsave;
    if (setup.tags_translations) s.cr4 |= arch::cr4::pcide;
    s.efer = arch::efer::sce | arch::efer::lme | arch::efer::lma | arch::efer::nxe;
    long r = raw_syscall(__NR_ioctl, fd(), KVM_SET_SREGS, as_long(&s));
    if (r < 0) return {step::set_registers, static_cast<int>(-r)};

    kvm_xcrs xcrs;
    base::zero_bytes(&xcrs, sizeof xcrs);
    xcrs.nr_xcrs = 1;
    xcrs.xcrs[0].value = caps.xcr0;
    r = raw_syscall(__NR_ioctl, fd(), KVM_SET_XCRS, as_long(&xcrs));
    if (r < 0) return {step::set_xcr0, static_cast<int>(-r)};

    using namespace arch;
    const std::uint64_t star =
        std::uint64_t{selector::sysret_base | 3} << 48 | std::uint64_t{selector::kernel_code} << 32;
    if (set_msr(fd(), msr::star, star) != 1) return {step::set_msr, base::error::inval};
    if (set_msr(fd(), msr::lstar, setup.syscall_entry) != 1)
        return {step::set_msr, base::error::inval};
    // There are no interrupts here; DF and TF would disturb the stub. R11 restores RFLAGS.
    if (set_msr(fd(), msr::syscall_mask, rflags::direction | rflags::trap | rflags::alignment) !=
        1) {
        return {step::set_msr, base::error::inval};
    }
    if (set_msr(fd(), msr::kernel_gs_base, setup.kernel_gs_base) != 1)
        return {step::set_msr, base::error::inval};
    return align_tsc(fd());
}

void vcpu::forget(const capabilities& caps) {
    if (run_) raw_syscall(__NR_munmap, as_long(run_), caps.run_size);
    run_ = nullptr;
    number_ = 0;
}

long vcpu::run() {
    return raw_syscall(__NR_ioctl, run_fd_, run_request_, static_cast<long>(run_argument_));
}

void vcpu::run_through(const call_device& calls, unsigned id) {
    run_by_module_ = {fd(), id, reinterpret_cast<std::uint64_t>(run_)};
    run_fd_ = calls.fd();
    run_request_ = XOS_IOC_RUN;
    run_argument_ = reinterpret_cast<std::uint64_t>(&run_by_module_);
}

arch::general_registers vcpu::read_registers() {
    kvm_regs r;
    if (run_->kvm_dirty_regs & KVM_SYNC_X86_REGS) {
        r = run_->s.regs.regs;  // written, but the vCPU has not run since
    } else {
        raw_syscall(__NR_ioctl, fd(), KVM_GET_REGS, as_long(&r));
    }
    return {r.r15, r.r14, r.r13, r.r12, r.r11, r.r10, r.r9,  r.r8,  r.rbp,
            r.rdi, r.rsi, r.rdx, r.rcx, r.rbx, r.rax, r.rip, r.rsp, r.rflags};
}

void vcpu::write_registers(const arch::general_registers& g) {
    kvm_regs& r = run_->s.regs.regs;
    r.r15 = g.r15, r.r14 = g.r14, r.r13 = g.r13, r.r12 = g.r12;
    r.r11 = g.r11, r.r10 = g.r10, r.r9 = g.r9, r.r8 = g.r8;
    r.rbp = g.rbp, r.rdi = g.rdi, r.rsi = g.rsi, r.rdx = g.rdx;
    r.rcx = g.rcx, r.rbx = g.rbx, r.rax = g.rax;
    r.rip = g.rip, r.rsp = g.rsp, r.rflags = g.rflags | arch::rflags::fixed;
    run_->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
}

kvm_sregs vcpu::read_special() {
    kvm_sregs s;
    raw_syscall(__NR_ioctl, fd(), KVM_GET_SREGS, as_long(&s));
    return s;
}

bool vcpu::exception_in_flight() {
    kvm_vcpu_events e;
    base::zero_bytes(&e, sizeof e);  // a software KVM may not have the call
    raw_syscall(__NR_ioctl, fd(), KVM_GET_VCPU_EVENTS, as_long(&e));
    return e.exception.injected;
}

bool vcpu::write_msr(std::uint32_t index, std::uint64_t value) {
    return set_msr(fd(), index, value) == 1;
}

void vcpu::write_special(kvm_sregs& s) {
    s.tr.type = tss_type_;  // KVM always reports a busy one
    raw_syscall(__NR_ioctl, fd(), KVM_SET_SREGS, as_long(&s));
}

void vcpu::write_fs(std::uint64_t base) {
    kvm_sregs s = read_special();
    s.fs.base = base;
    write_special(s);
}

void vcpu::toggle_global_pages() {
    kvm_sregs s = read_special();
    s.cr4 ^= arch::cr4::pge;
    write_special(s);
}

void vcpu::write_root(gpa root) {
    kvm_sregs s = read_special();
    s.cr3 = root.value;
    write_special(s);
}

void vcpu::read_xsave(xsave_area& area) {
    raw_syscall(__NR_ioctl, fd(), static_cast<long>(get_xsave), as_long(&area));
}

bool vcpu::write_xsave(const xsave_area& area) {
    return raw_syscall(__NR_ioctl, fd(), static_cast<long>(set_xsave), as_long(&area)) == 0;
}

}  // namespace xos::kvm
