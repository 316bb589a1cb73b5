// Asks /dev/kvm about itself.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "libxos/api/feature_probes.hpp"
#include "libxos/kvm/kvm_api.hpp"

namespace xos::api {

namespace {

using need = missing_capability::need;

struct wanted_capability {
    unsigned number;
    unsigned bits;  ///< the bits of the answer that must all be set
    const char* name;
    const char* needed_for;
    need how_much = need::required;
};

constexpr wanted_capability wanted[] = {
    {KVM_CAP_USER_MEMORY, 1, "KVM_CAP_USER_MEMORY", "show the process's memory to the guest"},
    {KVM_CAP_SYNC_REGS, KVM_SYNC_X86_REGS, "KVM_CAP_SYNC_REGS",
     "set the guest's registers without a system call (Linux 4.17)"},
    {KVM_CAP_IMMEDIATE_EXIT, 1, "KVM_CAP_IMMEDIATE_EXIT",
     "lose no signal that arrives just before the guest runs (Linux 4.13)"},
    {KVM_CAP_XSAVE, 1, "KVM_CAP_XSAVE", "carry floating-point and vector registers over"},
    {KVM_CAP_XCRS, 1, "KVM_CAP_XCRS", "enable the vector registers that the process uses"},
    {KVM_CAP_VCPU_ATTRIBUTES, 1, "KVM_CAP_VCPU_ATTRIBUTES",
     "make the time stamp counter the same inside and outside (Linux 5.16)", need::advised},
};

void ask_cpuid(int kvm, features::kvm_device& d) {
    auto list = std::make_unique<xos::kvm::cpuid_list>();
    if (ioctl(kvm, xos::kvm::get_supported_cpuid, list.get()) < 0) return;
    for (unsigned i = 0; i < list->count; i++) {
        const auto& e = list->entries[i];
        if (e.function == 0x80000001) d.gigabyte_pages = e.edx >> 26 & 1;
        if (e.function == 0x80000008) d.physical_bits = e.eax & 0xff;
    }
}

void ask(int kvm, features::kvm_device& d) {
    const int version = ioctl(kvm, KVM_GET_API_VERSION, 0);
    if (version < 0) {
        d.api_version_error = errno;
        return;
    }
    d.api_version = version;
    auto extension = [&](unsigned number) {
        const int r = ioctl(kvm, KVM_CHECK_EXTENSION, number);
        return r > 0 ? static_cast<unsigned>(r) : 0u;
    };
    for (const auto& w : wanted) {
        if ((extension(w.number) & w.bits) == w.bits) continue;
        d.missing.push_back({w.name, w.needed_for, w.how_much});
    }
    d.max_slots = extension(KVM_CAP_NR_MEMSLOTS);
    if (!d.max_slots) d.max_slots = 32;  // the default in the API document
    d.max_vcpus = extension(KVM_CAP_MAX_VCPUS);
    if (!d.max_vcpus) d.max_vcpus = extension(KVM_CAP_NR_VCPUS);
    ask_cpuid(kvm, d);
}

}  // namespace

features::kvm_device probe_kvm_device() {
    features::kvm_device d;
    struct stat status;
    d.present = stat("/dev/kvm", &status) == 0;
    const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0) {
        d.open_error = errno;
        return d;
    }
    ask(kvm, d);
    close(kvm);
    return d;
}

}  // namespace xos::api
