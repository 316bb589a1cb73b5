// Since Linux 6.12 the first KVM_RUN of a VM adds a kernel thread (kvm-nx-lpage-re) to the process
// that makes it. Programs that must be alone in their process, or think so, find it: Chromium's
// zygote, unshare(2), Python before it forks. So a process that ends at once makes that KVM_RUN,
// and the thread ends with it. KVM then does not merge again the large pages that it had to split
// because of a processor error. If there can be no such process, the thread stays here.
#include <asm/signal.h>
#include <asm/stat.h>
#include <linux/fcntl.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "libxos/base/clock.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/kvm/call_apart.hpp"
#include "libxos/kvm/vcpu.hpp"

namespace xos::kvm {

using base::as_long;
using base::monotonic_nanoseconds;
using base::outcome;
using base::raw_syscall;
using base::step;

namespace {

constexpr long interrupted = -4, no_child = -10, try_again = -11;
constexpr std::uint64_t millisecond = 1'000'000;

/// Whether this thread is alone in its process, and the process has no child: then nobody notices
/// what happens to SIGCHLD for a moment.
bool alone_without_children() {
    constexpr long of_any_state = WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT | __WALL;
    if (raw_syscall(__NR_waitid, P_ALL, 0, 0, of_any_state, 0) != no_child) return false;
    struct stat tasks;
    constexpr unsigned self_and_parent = 2;
    return raw_syscall(__NR_newfstatat, AT_FDCWD, as_long("/proc/self/task"), as_long(&tasks), 0) ==
               0 &&
           tasks.st_nlink == self_and_parent + 1;
}

/// While it exists, a child that ends with SIGCHLD leaves nothing behind: no status to wait for, no
/// share in RUSAGE_CHILDREN. Linux drops a pending SIGCHLD when its action becomes SIG_IGN, so a
/// pending one is kept here.
class unnoticed_children {
  public:
    unnoticed_children() {
        const std::uint64_t only = std::uint64_t{1} << (SIGCHLD - 1), at_once[2] = {};
        while (count_ < most && raw_syscall(__NR_rt_sigtimedwait, as_long(&only),
                                            as_long(pending_[count_]), as_long(at_once), 8) > 0)
            count_++;
        const std::uint64_t ignore[4] = {1};
        raw_syscall(__NR_rt_sigaction, SIGCHLD, as_long(ignore), as_long(action_), 8);
    }
    ~unnoticed_children() {
        raw_syscall(__NR_rt_sigaction, SIGCHLD, as_long(action_), 0, 8);
        const long self = raw_syscall(__NR_getpid);
        for (unsigned i = 0; i < count_; i++)
            raw_syscall(__NR_rt_sigqueueinfo, self, SIGCHLD, as_long(pending_[i]));
    }
    unnoticed_children(const unnoticed_children&) = delete;
    unnoticed_children& operator=(const unnoticed_children&) = delete;

  private:
    static constexpr unsigned most = 2;  // the thread's and the process's
    std::uint64_t pending_[most][16];
    unsigned count_ = 0;
    std::uint64_t action_[4] = {};
};

/// Waits for a process that has already released the memory. Spins for that moment: an observer of
/// this process should not find it asleep.
void wait_for(long process) {
    const std::uint64_t patience = monotonic_nanoseconds() + 100 * millisecond;
    while (raw_syscall(__NR_wait4, process, 0, WNOHANG | __WALL, 0) == 0) {
        if (monotonic_nanoseconds() > patience) {
            raw_syscall(__NR_wait4, process, 0, __WALL, 0);
            return;
        }
        raw_syscall(__NR_sched_yield);
    }
}

/// Makes KVM_RUN in a process that shares everything with this one and then ends.
long run_apart(int fd, long signal_at_end) {
    constexpr long sharing = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_VFORK | CLONE_UNTRACED;
    long result = try_again;
    const long process =
        xos_call_apart(__NR_ioctl, fd, KVM_RUN, 0, sharing | signal_at_end, &result);
    if (process < 0) return process;
    wait_for(process);
    return result;
}

long run_once(int fd) {
    long result;
    if (alone_without_children()) {
        const unnoticed_children now;
        result = run_apart(fd, SIGCHLD);
    } else {
        result = run_apart(fd, 0);
    }
    return result == interrupted ? result : raw_syscall(__NR_ioctl, fd, KVM_RUN, 0);
}

}  // namespace

/// KVM_RUN returns at once, before the guest's first instruction.
outcome vcpu::run_first() {
    constexpr long set_mask = 2;
    const std::uint64_t all = ~std::uint64_t{0};
    std::uint64_t before = 0;
    raw_syscall(__NR_rt_sigprocmask, set_mask, as_long(&all), as_long(&before), 8);
    run_->immediate_exit = 1;
    long result = run_once(fd());
    // The limit of processes is reached, perhaps because of others that are about to end.
    constexpr std::uint64_t longest = 512 * millisecond;
    for (std::uint64_t pause = millisecond; result == try_again && pause <= longest; pause *= 2) {
        const std::uint64_t time[2] = {0, pause};
        raw_syscall(__NR_nanosleep, as_long(time), 0);
        result = run_once(fd());
    }
    run_->immediate_exit = 0;
    raw_syscall(__NR_rt_sigprocmask, set_mask, as_long(&before), 0, 8);
    if (result == try_again) return {step::first_run, base::error::again};
    return base::success;
}

}  // namespace xos::kvm
