#include <linux/fcntl.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include <initializer_list>

#include "libxos/arch/cpu.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/kvm/call_apart.hpp"
#include "libxos/kvm/machine.hpp"

namespace xos::kvm {

using base::as_long;
using base::outcome;
using base::raw_syscall;
using base::step;

namespace {

/// Whether a guest at ring 3 on a software KVM executes CPUID natively: Linux says that it cannot
/// make the instruction fault, so nothing can answer in the processor's place.
bool cpuid_is_native() {
    constexpr long no_device = -19, is_answered = 0x1011, set_answered = 0x1012;
    return raw_syscall(__NR_arch_prctl, is_answered) == 1 &&
           raw_syscall(__NR_arch_prctl, set_answered, 1) == no_device;
}

/// Lists only the leaves that KVM itself looks at, for a guest whose CPUID does not reach KVM.
/// KVM's own list is ten times as long, and reading each leaf makes a virtual machine exit to its
/// hypervisor: half a millisecond of every start.
void describe_processor(cpuid_list& list) {
    constexpr std::uint32_t leaves[] = {0, 1, 7, 0xd, 0x8000'0000, 0x8000'0001, 0x8000'0008};
    constexpr std::uint32_t process_context_ids = 1u << 17, gigabyte_pages = 1u << 26;
    list.count = 0;
    for (const std::uint32_t leaf : leaves) {
        const arch::cpuid_result r = arch::cpuid(leaf);
        auto& entry = list.entries[list.count++];
        entry = {};
        entry.function = leaf;
        if (leaf == 7 || leaf == 0xd) entry.flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
        // A vCPU may have AMX only after the process has asked for it.
        entry.eax = leaf == 0xd ? r.eax & ~static_cast<std::uint32_t>(arch::xcr0_excluded) : r.eax;
        entry.ebx = r.ebx;
        entry.ecx = leaf == 1 ? r.ecx & ~process_context_ids : r.ecx;
        entry.edx = leaf == 0x8000'0001 ? r.edx & ~gigabyte_pages : r.edx;
    }
}

bool linux_is_at_least(unsigned major, unsigned minor) {
    struct {
        char system[65], node[65], release[65], version[65], machine[65], domain[65];
    } name;
    if (raw_syscall(__NR_uname, as_long(&name)) != 0) return false;
    unsigned number[2] = {};
    const char* digit = name.release;
    for (unsigned& n : number) {
        for (; *digit >= '0' && *digit <= '9'; digit++) {
            n = 10 * n + static_cast<unsigned>(*digit - '0');
        }
        if (*digit == '.') digit++;
    }
    return number[0] > major || (number[0] == major && number[1] >= minor);
}

// KVM reports the features that a vCPU may have; a software KVM reports too few. A missing feature
// bit hides an instruction only from programs that check the bit.
outcome read_capabilities(int system, capabilities& caps) {
    long version = raw_syscall(__NR_ioctl, system, KVM_GET_API_VERSION, 0);
    if (version < 0) return {step::not_kvm, static_cast<int>(-version)};
    if (version != KVM_API_VERSION) return {step::api_version, base::error::proto};
    auto extension = [&](unsigned cap) {
        long r = raw_syscall(__NR_ioctl, system, KVM_CHECK_EXTENSION, cap);
        return r > 0 ? static_cast<unsigned>(r) : 0u;
    };
    if (!extension(KVM_CAP_USER_MEMORY)) return {step::capability_user_memory, base::error::nosys};
    if (!(extension(KVM_CAP_SYNC_REGS) & KVM_SYNC_X86_REGS)) {
        return {step::capability_sync_regs, base::error::nosys};
    }
    if (!extension(KVM_CAP_IMMEDIATE_EXIT))
        return {step::capability_immediate_exit, base::error::nosys};
    caps.max_slots = extension(KVM_CAP_NR_MEMSLOTS);
    if (!caps.max_slots) caps.max_slots = 32;
    caps.max_vcpus = extension(KVM_CAP_MAX_VCPUS);
    if (!caps.max_vcpus) caps.max_vcpus = extension(KVM_CAP_NR_VCPUS);
    caps.run_size =
        static_cast<unsigned>(raw_syscall(__NR_ioctl, system, KVM_GET_VCPU_MMAP_SIZE, 0));

    caps.first_run_adds_thread = linux_is_at_least(6, 12);
    caps.hardware = arch::has_hardware_virtualization();
    if (!caps.hardware && cpuid_is_native()) {
        describe_processor(caps.cpuid);
    } else {
        caps.cpuid.count = cpuid_list::capacity;
        long r = raw_syscall(__NR_ioctl, system, static_cast<long>(get_supported_cpuid),
                             as_long(&caps.cpuid));
        if (r < 0) return {step::set_cpuid, static_cast<int>(-r)};
    }
    std::uint64_t supported_xcr0 = 0;
    caps.physical_bits = 36;
    for (unsigned i = 0; i < caps.cpuid.count; i++) {
        auto& e = caps.cpuid.entries[i];
        if (e.function == 0xd && e.index == 0) supported_xcr0 = std::uint64_t{e.edx} << 32 | e.eax;
        if (e.function == 0x80000001) caps.gigabyte_pages = e.edx >> 26 & 1;
        if (e.function == 1) caps.process_context_ids = e.ecx >> 17 & 1;
        if (e.function == 0x80000008 && (e.eax & 0xff)) caps.physical_bits = e.eax & 0xff;
    }
    if (!(arch::cpuid(1).ecx >> 27 & 1)) return {step::no_xsave, base::error::nosys};
    // AT_HWCAP2 bit 1 would say whether Linux lets processes use FSGSBASE; only CPUID can be asked
    // here.
    if (!(arch::cpuid(7).ebx & 1)) return {step::no_fsgsbase, base::error::nosys};
    std::uint64_t wanted = arch::read_xcr0() & ~arch::xcr0_excluded;
    // A software KVM may not list XSAVE at all and still run it natively.
    caps.xcr0 = supported_xcr0 ? wanted & supported_xcr0 : wanted;
    caps.xsave_size = arch::xsave_size(caps.xcr0);
    return base::success;
}

long open_system() {
    return raw_syscall(__NR_open, as_long("/dev/kvm"), O_RDWR | O_CLOEXEC);
}

}  // namespace

outcome probe_capabilities(capabilities& caps) {
    long system = open_system();
    if (system < 0) return {step::open_kvm, static_cast<int>(-system)};
    outcome result = read_capabilities(static_cast<int>(system), caps);
    raw_syscall(__NR_close, system);
    return result;
}

outcome machine::create(descriptor_set& descriptors, capabilities& caps) {
    const descriptor_set::room guard(descriptors);
    if (system_ < 0) {
        const long system = descriptors.adopt(static_cast<int>(open_system()));
        if (system < 0) return {step::open_kvm, static_cast<int>(-system)};
        system_ = static_cast<int>(system);
    }
    if (!caps.run_size) {
        if (auto failed = read_capabilities(system_, caps); !failed.ok()) return failed;
    }
    long fd;
    // Stopping and continuing the process interrupts this call, too.
    do fd = raw_syscall(__NR_ioctl, system_, KVM_CREATE_VM, 0);
    while (fd == -base::error::intr);
    fd = descriptors.adopt(static_cast<int>(fd));
    if (fd < 0) return {step::create_vm, static_cast<int>(-fd)};
    fd_ = static_cast<int>(fd);
    // VMX without unrestricted guest wants three pages for its real-mode TSS; libxos's memory
    // starts above 4 GiB.
    raw_syscall(__NR_ioctl, fd_, KVM_SET_TSS_ADDR, 0xfffbd000);
    slots_ = 0;
    has_vcpu_ = false;
    return base::success;
}

void machine::destroy(descriptor_set& descriptors) {
    descriptors.close(fd_);
    forget();
}

outcome machine::add_slot(gpa guest, hva host, std::uint64_t length) {
    kvm_userspace_memory_region region{slots_, 0, guest.value, length, host.value};
    long r = raw_syscall(__NR_ioctl, fd_, KVM_SET_USER_MEMORY_REGION, as_long(&region));
    if (r < 0) return {step::memory_slot, static_cast<int>(-r)};
    slots_++;
    return base::success;
}

outcome machine::replace_slot(unsigned slot, gpa guest, hva host, std::uint64_t length) {
    // KVM does not move a slot to other memory of the process in one step.
    for (const std::uint64_t bytes : {std::uint64_t{0}, length}) {
        kvm_userspace_memory_region region{slot, 0, guest.value, bytes, host.value};
        const long r = raw_syscall(__NR_ioctl, fd_, KVM_SET_USER_MEMORY_REGION, as_long(&region));
        if (r < 0) return {step::memory_slot, static_cast<int>(-r)};
    }
    return base::success;
}

outcome machine::begin_slot(slot_request& request, unsigned slot, gpa guest, hva host,
                            std::uint64_t length) {
    constexpr long sharing = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_UNTRACED, set_mask = 2;
    request.region = {slot, 0, guest.value, length, host.value};
    request.result = in_progress;
    const std::uint64_t all = ~std::uint64_t{0};
    std::uint64_t before = 0;
    raw_syscall(__NR_rt_sigprocmask, set_mask, as_long(&all), as_long(&before), 8);
    request.process = xos_call_apart(__NR_ioctl, fd_, static_cast<long>(KVM_SET_USER_MEMORY_REGION),
                                     as_long(&request.region), sharing, &request.result);
    raw_syscall(__NR_rt_sigprocmask, set_mask, as_long(&before), 0, 8);
    if (request.process < 0) return {step::memory_slot, static_cast<int>(-request.process)};
    return base::success;
}

outcome machine::end_slot(slot_request& request) {
    raw_syscall(__NR_wait4, request.process, 0, __WALL, 0);
    if (request.result < 0) return {step::memory_slot, static_cast<int>(-request.result)};
    if (request.region.slot == slots_) slots_++;
    return base::success;
}

}  // namespace xos::kvm
