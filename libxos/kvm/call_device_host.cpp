#include <linux/fcntl.h>

#include "libxos/arch/guest_layout.h"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/kvm/call_device.hpp"

namespace xos::kvm {

using base::as_long;
using base::outcome;
using base::raw_syscall;
using base::step;

static_assert(descriptor_set::limit == XOS_DESCRIPTORS);

namespace {

long request(int fd, unsigned long number, const void* argument) {
    return raw_syscall(__NR_ioctl, fd, static_cast<long>(number), as_long(argument));
}

outcome check_version(int fd) {
    xos_info info{};
    if (const long r = request(fd, XOS_IOC_INFO, &info); r < 0) {
        return {step::module_version, static_cast<int>(-r)};
    }
    if (info.abi_version != XOS_ABI_VERSION) return {step::module_version, base::error::proto};
    return base::success;
}

}  // namespace

outcome call_device::attach(descriptor_set& descriptors, const machine& owner, unsigned max_vcpus,
                            const std::uint32_t* calls) {
    long fd = raw_syscall(__NR_open, as_long("/dev/xos"), O_RDWR | O_CLOEXEC);
    if (fd >= 0) fd = descriptors.adopt(static_cast<int>(fd));
    if (fd < 0) return {step::open_module, static_cast<int>(-fd)};
    const int device = static_cast<int>(fd);
    outcome result = check_version(device);
    if (result.ok()) {
        xos_attach a{};
        a.abi_version = XOS_ABI_VERSION;
        a.vm_fd = owner.fd();
        a.max_vcpus = max_vcpus;
        a.port = XOS_PORT_SYSCALL;
        a.calls = reinterpret_cast<std::uint64_t>(calls);
        a.descriptors = reinterpret_cast<std::uint64_t>(descriptors.bits());
        if (const long r = request(device, XOS_IOC_ATTACH, &a); r < 0)
            result = {step::attach_module, static_cast<int>(-r)};
    }
    xos_info info{};
    if (!result.ok() || request(device, XOS_IOC_INFO, &info) < 0) {
        descriptors.close(device);
        return result.ok() ? outcome{step::attach_module, base::error::io} : result;
    }
    fd_ = device;
    features_ = info.features;
    return base::success;
}

void call_device::detach(descriptor_set& descriptors) {
    descriptors.close(fd_);
    fd_ = -1;
}

outcome call_device::guard(const xos_guard& range) const {
    if (!attached()) return base::success;
    if (const long r = request(fd_, XOS_IOC_GUARD, &range); r < 0)
        return {step::attach_module, static_cast<int>(-r)};
    return base::success;
}

outcome call_device::add_vcpu(unsigned id, const xos_frame* frame) {
    xos_vcpu v{};
    v.id = id;
    v.frame = reinterpret_cast<std::uint64_t>(frame);
    if (const long r = request(fd_, XOS_IOC_VCPU, &v); r < 0)
        return {step::attach_module, static_cast<int>(-r)};
    return base::success;
}

bool call_device::read_statistics(xos_statistics& to) const {
    return attached() && request(fd_, XOS_IOC_STATISTICS, &to) == 0;
}

}  // namespace xos::kvm
