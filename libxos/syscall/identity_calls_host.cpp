// Calls that ask who the thread is, and those that change it. The guest answers the first kind
// itself as soon as the answer is known and cannot change (arch::thread_ids).
//
// Linux's own answer to the thread's own call is what becomes known, so that a filter that the
// process was started with has had its say. The ids of a process and a thread never change. Those
// of users and groups belong to the thread, and only its own calls change them. In a user namespace
// other than the first, another process may also do so: it writes the map of ids.
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/local.hpp"

namespace xos::syscall {

using arch::thread_ids;
using cell::context;

namespace {

using id = std::int64_t thread_ids::*;

/// Asks without a descriptor, which other threads would notice.
bool in_first_user_namespace() {
    char link[32];
    const long n = base::raw_syscall(__NR_readlink, base::as_long("/proc/thread-self/ns/user"),
                                     base::as_long(link), sizeof link - 1);
    if (n <= 0) return false;
    link[n] = 0;
    return base::same(link, "user:[4026531837]");  // Linux, include/linux/proc_ns.h
}

long ask_constant(context& c, unsigned number, const std::uint64_t* a, id which) {
    const long r = forward(c, number, a);
    if (r > 0 && answer_of_own(number)) c.kernel_area->ids.*which = r;
    return r;
}

/// Most programs ask once, and learning costs as much as asking.
long ask_credential(context& c, unsigned number, const std::uint64_t* a, id which) {
    const long r = forward(c, number, a);
    std::int64_t& known = c.kernel_area->ids.*which;
    if (r < 0 || !answer_of_own(number)) return r;
    if (known == thread_ids::unknown)
        known = thread_ids::asked_once;
    else if (known == thread_ids::asked_once)
        known = in_first_user_namespace() ? r : thread_ids::not_constant;
    return r;
}

long change_credentials(context& c, unsigned number, const std::uint64_t* a) {
    c.kernel_area->ids.forget_credentials();
    return forward(c, number, a);
}

}  // namespace

long getpid(context& c, const std::uint64_t* a) {
    return ask_constant(c, __NR_getpid, a, &thread_ids::process);
}
long gettid(context& c, const std::uint64_t* a) {
    return ask_constant(c, __NR_gettid, a, &thread_ids::thread);
}
long getuid(context& c, const std::uint64_t* a) {
    return ask_credential(c, __NR_getuid, a, &thread_ids::user);
}
long geteuid(context& c, const std::uint64_t* a) {
    return ask_credential(c, __NR_geteuid, a, &thread_ids::effective_user);
}
long getgid(context& c, const std::uint64_t* a) {
    return ask_credential(c, __NR_getgid, a, &thread_ids::group);
}
long getegid(context& c, const std::uint64_t* a) {
    return ask_credential(c, __NR_getegid, a, &thread_ids::effective_group);
}

long setuid(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_setuid, a);
}
long setgid(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_setgid, a);
}
long setreuid(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_setreuid, a);
}
long setregid(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_setregid, a);
}
long setresuid(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_setresuid, a);
}
long setresgid(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_setresgid, a);
}
long setns(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_setns, a);
}
long unshare(context& c, const std::uint64_t* a) {
    return change_credentials(c, __NR_unshare, a);
}

}  // namespace xos::syscall
