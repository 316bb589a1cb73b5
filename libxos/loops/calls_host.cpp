// What each system call means for turns.
#include <linux/eventpoll.h>
#include <linux/fcntl.h>
#include <linux/prctl.h>
#include <linux/sched.h>

#include "libxos/base/errno.hpp"
#include "libxos/loops/descriptors.hpp"
#include "libxos/loops/loops.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::loops {

using cell::context;
using cell::position;

namespace {

enum class concern : std::uint8_t {
    everything,   ///< any descriptor; also each call that is not listed
    descriptors,  ///< those that its arguments name
    nothing,
};

constexpr concern concern_of(std::uint64_t number) {
    switch (number) {
        case __NR_read:
        case __NR_write:
        case __NR_readv:
        case __NR_writev:
        case __NR_pread64:
        case __NR_pwrite64:
        case __NR_recvfrom:
        case __NR_sendto:
        case __NR_recvmsg:
        case __NR_recvmmsg:
        case __NR_sendmsg:
        case __NR_sendmmsg:
        case __NR_sendfile:
        case __NR_accept:
        case __NR_accept4:
        case __NR_connect:
        case __NR_bind:
        case __NR_listen:
        case __NR_shutdown:
        case __NR_getsockopt:
        case __NR_setsockopt:
        case __NR_getsockname:
        case __NR_getpeername:
        case __NR_epoll_ctl:
        case __NR_epoll_wait:
        case __NR_epoll_pwait:
        case __NR_close:
        case __NR_dup:
        case __NR_dup2:
        case __NR_dup3:
        case __NR_fcntl:
        case __NR_ioctl:
        case __NR_fstat:
        case __NR_lseek:
        case __NR_fsync:
        case __NR_fdatasync:
            return concern::descriptors;
        case __NR_socket:
        case __NR_epoll_create:
        case __NR_epoll_create1:
        case __NR_eventfd2:
        case __NR_open:
        case __NR_openat:
        case __NR_stat:
        case __NR_newfstatat:
        case __NR_unlink:
        case __NR_futex:
        case __NR_mmap:
        case __NR_munmap:
        case __NR_mprotect:
        case __NR_madvise:
        case __NR_mremap:
        case __NR_brk:
        case __NR_sched_yield:
        case __NR_nanosleep:
        case __NR_clock_nanosleep:
        case __NR_clock_gettime:
        case __NR_gettimeofday:
        case __NR_time:
        case __NR_getpid:
        case __NR_getppid:
        case __NR_gettid:
        case __NR_getrusage:
        case __NR_getrandom:
        case __NR_rt_sigprocmask:
        case __NR_rt_sigaction:
        case __NR_rt_sigreturn:
        case __NR_sigaltstack:
        case __NR_timerfd_settime:
            return concern::nothing;
        default:
            return concern::everything;
    }
}

/// Whether a signal that comes during the call leaves no trace. Of those that transfer data, the
/// ones about sockets that do not wait.
bool cannot_wait(std::uint64_t number, const std::uint64_t* a) {
    switch (number) {
        case __NR_epoll_ctl:
        case __NR_close:
        case __NR_socket:
        case __NR_getsockopt:
        case __NR_setsockopt:
        case __NR_getsockname:
        case __NR_getpeername:
        case __NR_fcntl:
        case __NR_fstat:
        case __NR_lseek:
        case __NR_mmap:
        case __NR_munmap:
        case __NR_madvise:
        case __NR_mprotect:
        case __NR_getpid:
        case __NR_clock_gettime:
            return true;
        case __NR_read:
        case __NR_write:
        case __NR_readv:
        case __NR_writev:
        case __NR_recvfrom:
        case __NR_sendto:
        case __NR_recvmsg:
        case __NR_sendmsg: {
            const descriptor* const d = the_descriptors.find(a[0]);
            return d && d->kind == descriptor_kind::stream && d->non_blocking;
        }
        default:
            return false;
    }
}

constexpr bool transfers(std::uint64_t number) {
    return number == __NR_read || number == __NR_write || number == __NR_readv ||
           number == __NR_writev || number == __NR_recvfrom || number == __NR_sendto ||
           number == __NR_recvmsg || number == __NR_sendmsg;
}

/// Sockets that another thread than their owner uses are left to Linux from then on.
void leave_to_linux(const context& c, std::uint64_t number) {
    descriptor* const d = the_descriptors.find(number);
    if (!d || d->kind == descriptor_kind::unknown || d->owner == 0 || d->owner == c.id + 1) return;
    the_descriptors.forget(number);
    settle_descriptor(number);
}

void look_at_descriptors(const context& c, std::uint64_t number, const std::uint64_t* a) {
    const auto& facts = syscall::lookup(static_cast<unsigned>(number));
    for (unsigned i = 0; i < facts.argument_count; i++) {
        if (facts.arguments[i] == syscall::argument::fd) leave_to_linux(c, a[i]);
    }
}

/// A message to a socket that is no TCP connection may carry descriptors away.
void look_at_message(std::uint64_t number, const std::uint64_t* a) {
    if (the_descriptors.is(a[0], descriptor_kind::stream)) return;
    std::uint64_t message[7];
    if (number == __NR_sendmsg && syscall::copy_in(message, a[1], sizeof message) && !message[5])
        return;
    the_descriptors.share_all();
}

/// For good: io_uring reads and writes behind libxos's back, and threads may have descriptors of
/// their own.
void stop_batching(const context& c) {
    hold_turns();
    end_other_turns(c);
    syscall::answer_outside(syscall::served::event_loops);
}

std::uint64_t clone_flags(std::uint64_t number, const std::uint64_t* a) {
    if (number == __NR_clone) return a[0];
    if (number == __NR_fork) return 0;
    if (number == __NR_vfork) return CLONE_VM | CLONE_VFORK;
    std::uint64_t flags = 0;
    syscall::copy_in(&flags, a[0], sizeof flags);
    return flags;
}

/// What must be so before the call is made.
void prepare(context& c, std::uint64_t number, const std::uint64_t* a) {
    switch (number) {
        case __NR_close:
            return the_descriptors.forget(a[0]);
        case __NR_dup2:
        case __NR_dup3:
            the_descriptors.forget(a[1]);
            return the_descriptors.forget(a[0]);
        case __NR_dup:
        case __NR_shutdown:
            return the_descriptors.forget(a[0]);
        case __NR_fcntl:
            // What has no pointer and changes nothing else is the flags.
            if (a[1] == F_GETFL || a[1] == F_GETFD || a[1] == F_SETFD) return;
            if (a[1] == F_SETFL) return the_descriptors.doubt(a[0]);
            return the_descriptors.forget(a[0]);
        case __NR_ioctl:
            return the_descriptors.doubt(a[0]);
        case __NR_setsockopt: {
            // TCP_NODELAY and the like change nothing that matters; a protocol on top does.
            constexpr std::uint64_t tcp = 6, repair = 19, upper_protocol = 31;
            if (a[1] == tcp && (a[2] == repair || a[2] == upper_protocol))
                return the_descriptors.forget(a[0]);
            if (a[1] != tcp) the_descriptors.doubt(a[0]);
            return;
        }
        case __NR_connect:
            return the_descriptors.connects(a[1], a[2]);
        case __NR_sendmsg:
        case __NR_sendmmsg:
            return look_at_message(number, a);
        case __NR_close_range:
            return the_descriptors.share_all();
        case __NR_io_uring_setup:
        case __NR_unshare:
        case __NR_setns:
            return stop_batching(c);
        case __NR_exit:
            delete_timer(c);
            return give_back_turn(c);
        case __NR_seccomp:
        case __NR_prctl:
            if (number == __NR_seccomp || a[0] == PR_SET_SECCOMP) delete_timer(c);
            return;
        default:
            return;
    }
}

/// What is known now that the call has succeeded.
void note(std::uint64_t number, const std::uint64_t* a, std::uint64_t result) {
    switch (number) {
        case __NR_accept:
        case __NR_accept4:
        case __NR_socket:
            return the_descriptors.opened(result, descriptor_kind::fresh);
        case __NR_epoll_create:
        case __NR_epoll_create1:
            return the_descriptors.opened(result, descriptor_kind::loop);
        case __NR_listen:
            return the_descriptors.listens(a[0]);
        case __NR_epoll_ctl: {
            if (a[1] == EPOLL_CTL_DEL) return the_descriptors.unregistered(a[0], a[2]);
            // Linux has just read it.
            const auto& event = *reinterpret_cast<const epoll_event*>(a[3]);
            return the_descriptors.registered(a[0], a[2], event.events, event.data);
        }
        default:
            return;
    }
}

bool is_wait(std::uint64_t number, const std::uint64_t* a) {
    // A mask of signals for the time of the wait might let the timer's signal through.
    return number == __NR_epoll_wait || (number == __NR_epoll_pwait && a[4] == 0);
}

/// Whether only this thread waits for the instance; else its sockets are left to Linux.
bool owns_loop(const context& c, std::uint64_t loop) {
    descriptor* const d = the_descriptors.find(loop);
    if (!d || !the_descriptors.is(loop, descriptor_kind::loop)) return false;
    std::uint32_t nobody = 0;
    const bool owns = __atomic_compare_exchange_n(&d->owner, &nobody, c.id + 1, false,
                                                  __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST) ||
                      nobody == c.id + 1;
    if (!owns) {
        the_descriptors.share_all();
        end_other_turns(c);
    }
    return owns;
}

void wait_for_loop(context& c, void (*make)(context&), const std::uint64_t* a) {
    arch::guest_area& area = *c.kernel_area;
    const bool owns = owns_loop(c, a[0]);
    const bool may_wait = static_cast<std::uint32_t>(a[3]) != 0;
    bool ready = false;
    if (c.loop.timer_runs && may_wait) {
        // Under load something is ready, and the timer need not be touched.
        area.arguments[3] = 0;
        make(c);
        area.arguments[3] = a[3];
        ready = c.stop.where != position::system_call || area.result != 0;
        if (!ready) stop_timer(c);
    }
    if (!ready) make(c);
    if (owns && c.stop.where == position::system_call && static_cast<long>(area.result) > 0)
        begin_turn(c, a[0], a[1], static_cast<unsigned>(area.result));
}

void make_process(context& c, void (*make)(context&), std::uint64_t flags) {
    const bool thread = flags & CLONE_THREAD;
    if (thread && (flags & CLONE_FILES)) return make(c);
    hold_turns();
    end_other_turns(c);
    the_descriptors.share_all();
    if (thread) syscall::answer_outside(syscall::served::event_loops);
    make(c);
    // In the child nothing is held.
    if (c.stop.where != position::application && !thread) release_turns();
}

}  // namespace

void around_call(context& c, void (*make)(context&)) {
    arch::guest_area& area = *c.kernel_area;
    const std::uint64_t number = static_cast<std::uint32_t>(area.number);
    const std::uint64_t a[6] = {area.arguments[0], area.arguments[1], area.arguments[2],
                                area.arguments[3], area.arguments[4], area.arguments[5]};
    end_turn(c);
    const concern about = concern_of(number);
    if (about == concern::descriptors) look_at_descriptors(c, number, a);
    if (about == concern::everything && other_turns_under_way(c)) end_other_turns(c);
    if (is_wait(number, a)) return wait_for_loop(c, make, a);
    if (c.loop.timer_runs && !cannot_wait(number, a)) stop_timer(c);
    if (transfers(number)) {
        descriptor* const d = the_descriptors.find(a[0]);
        if (d && d->error) [[unlikely]] {
            area.result = static_cast<std::uint64_t>(-static_cast<long>(d->error));
            d->error = 0;
            return;
        }
    }
    switch (number) {
        case __NR_fork:
        case __NR_vfork:
        case __NR_clone:
        case __NR_clone3:
            return make_process(c, make, clone_flags(number, a));
        default:
            break;
    }
    prepare(c, number, a);
    make(c);
    if (c.stop.where == position::system_call && static_cast<long>(area.result) >= 0)
        note(number, a, area.result);
}

}  // namespace xos::loops
