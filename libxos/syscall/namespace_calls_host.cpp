// Calls that only a process of one thread may make: a new user namespace, for one. Since Linux 6.12
// KVM adds threads of its own to the process that has a VM, so the VM goes for the call.
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using cell::context;

namespace {

constexpr long too_many_users = -87;

long call_alone(context& c, unsigned number, const std::uint64_t* a) {
    const long r = forward(c, number, a);
    const bool refused = r == error_inval || r == too_many_users;
    if (!refused || c.native || c.shares_memory_only || !only_thread(c)) return r;
    std::uint64_t mask;
    if (!hold_application(c, mask)) return 0;
    const std::uint64_t fs = guest_fs(c);
    cell::drop_machine();
    c.saved.rax = static_cast<std::uint64_t>(
        base::raw_syscall(number, static_cast<long>(a[0]), static_cast<long>(a[1])));
    make_machine_again(c, fs, mask);
    return static_cast<long>(c.saved.rax);
}

}  // namespace

long unshare(context& c, const std::uint64_t* a) {
    return call_alone(c, __NR_unshare, a);
}

long setns(context& c, const std::uint64_t* a) {
    return call_alone(c, __NR_setns, a);
}

}  // namespace xos::syscall
