#include <asm/resource.h>
#include <linux/capability.h>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/kvm/descriptor_limit.hpp"

namespace xos::kvm {

using base::as_long;
using base::raw_syscall;

namespace {

long prlimit(const resource_limit* wanted, resource_limit* old) {
    return raw_syscall(__NR_prlimit64, 0, RLIMIT_NOFILE, as_long(wanted), as_long(old));
}

/// A process with this capability may raise hard limits.
bool may_raise() {
    __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};
    if (raw_syscall(__NR_capget, as_long(&header), as_long(data)) < 0) return false;
    return data[0].effective >> CAP_SYS_RESOURCE & 1;
}

}  // namespace

long descriptor_limit::change(const resource_limit* wanted, resource_limit* old) {
    resource_limit real;
    if (long r = prlimit(nullptr, &real)) return r;
    const std::uint64_t hard = hard_ < real.hard ? hard_ : real.hard;
    if (old) *old = {real.soft, hard};
    if (!wanted) return 0;
    if (wanted->soft > wanted->hard) return -base::error::inval;
    if (wanted->hard > hard && !may_raise()) return -base::error::perm;
    if (wanted->hard >= real.hard) {
        // The kernel knows who may raise the limit, and how far.
        if (long r = prlimit(wanted, nullptr)) return r;
        hard_ = as_in_kernel;
        return 0;
    }
    const resource_limit kept{wanted->soft, real.hard};
    if (long r = prlimit(&kept, nullptr)) return r;
    hard_ = wanted->hard;
    return 0;
}

void descriptor_limit::make_real() const {
    resource_limit real;
    if (hard_ == as_in_kernel || prlimit(nullptr, &real)) return;
    const resource_limit lowered{real.soft < hard_ ? real.soft : hard_,
                                 real.hard < hard_ ? real.hard : hard_};
    prlimit(&lowered, nullptr);
}

}  // namespace xos::kvm
