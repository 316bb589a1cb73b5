// What each system call means for turns.
#include <linux/close_range.h>
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
using syscall::make_call;

namespace {

// Newer than the headers of some distributions.
constexpr unsigned number_of_pidfd_getfd = 438, number_of_epoll_pwait2 = 441;

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
        case __NR_socket:
        case __NR_getsockopt:
        case __NR_setsockopt:
        case __NR_getsockname:
        case __NR_getpeername:
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
        case __NR_sendmsg:
            return the_descriptors.is(a[0], descriptor_kind::stream) &&
                   the_descriptors.find(a[0])->non_blocking;
        case __NR_fcntl: {
            const auto command = static_cast<std::uint32_t>(a[1]);
            return command == F_GETFL || command == F_SETFL || command == F_GETFD ||
                   command == F_SETFD;
        }
        default:
            return false;
    }
}

constexpr bool reads(std::uint64_t number) {
    return number == __NR_read || number == __NR_readv || number == __NR_recvfrom ||
           number == __NR_recvmsg;
}
constexpr bool writes(std::uint64_t number) {
    return number == __NR_write || number == __NR_writev || number == __NR_sendto ||
           number == __NR_sendmsg;
}

/// Calls about a descriptor that move none of its bytes: any thread may make them.
constexpr bool moves_nothing(std::uint64_t number) {
    switch (number) {
        case __NR_epoll_ctl:
        case __NR_fcntl:
        case __NR_ioctl:
        case __NR_setsockopt:
        case __NR_getsockopt:
        case __NR_getsockname:
        case __NR_getpeername:
        case __NR_fstat:
        case __NR_close:
        case __NR_bind:
        case __NR_listen:
        case __NR_accept:
        case __NR_accept4:
            return true;
        default:
            return false;
    }
}

/// From now on the descriptor is left to Linux.
void leave_to_linux(std::uint64_t number) {
    the_descriptors.forget(number);
    settle_descriptor(number);
}

/// All that are open now are.
void leave_all_to_linux(const context& c) {
    the_descriptors.share_all();
    end_other_turns(c);
}

/// Sockets that another thread than their owner uses are left to Linux.
void look_at_descriptor(const context& c, std::uint64_t number, std::uint64_t call) {
    descriptor* const d = the_descriptors.find(number);
    if (!d || (d->kind != descriptor_kind::fresh && d->kind != descriptor_kind::stream)) return;
    if (d->owner == 0 && moves_nothing(call)) return;
    if (!d->belongs_to(c.id)) leave_to_linux(number);
}

void look_at_descriptors(const context& c, std::uint64_t call, const std::uint64_t* a) {
    const auto& facts = syscall::lookup(static_cast<unsigned>(call));
    for (unsigned i = 0; i < facts.argument_count; i++) {
        if (facts.arguments[i] == syscall::argument::fd) look_at_descriptor(c, a[i], call);
    }
}

/// A message to a socket that is no TCP connection may carry descriptors away.
void look_at_message(const context& c, std::uint64_t number, const std::uint64_t* a) {
    if (the_descriptors.is(a[0], descriptor_kind::stream)) return;
    cell::message_header m;
    if (number == __NR_sendmsg && syscall::copy_in(&m, a[1], sizeof m) && !m.control_length) return;
    leave_all_to_linux(c);
}

/// Threads of the process that talk to each other by a connection can tell by memory what a network
/// could not.
void talk_to_itself(const context& c) {
    if (!the_descriptors.talks_to_itself.exchange(true)) leave_all_to_linux(c);
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
    const auto second = static_cast<std::uint32_t>(a[1]), third = static_cast<std::uint32_t>(a[2]);
    constexpr std::uint32_t fast_open = 0x20000000;  // MSG_FASTOPEN: sends and connects
    switch (number) {
        case __NR_close:
        case __NR_dup:
        case __NR_shutdown:
            return leave_to_linux(a[0]);
        case __NR_dup2:
        case __NR_dup3:
            leave_to_linux(a[1]);
            return leave_to_linux(a[0]);
        case __NR_fcntl:
            if (second == F_GETFL || second == F_GETFD || second == F_SETFD) return;
            if (second == F_SETFL) return the_descriptors.doubt(a[0]);
            return leave_to_linux(a[0]);
        case __NR_ioctl:
            return the_descriptors.doubt(a[0]);
        case __NR_setsockopt: {
            // TCP_NODELAY and the like change nothing that matters; a protocol on top does.
            constexpr std::uint32_t tcp = 6, repair = 19, upper_protocol = 31;
            if (second == tcp && (third == repair || third == upper_protocol))
                return leave_to_linux(a[0]);
            if (second != tcp) the_descriptors.doubt(a[0]);
            return;
        }
        case __NR_connect:
            if (the_descriptors.connects_to_itself(a[1], a[2])) talk_to_itself(c);
            return;
        case __NR_sendto:
            if (static_cast<std::uint32_t>(a[3]) & fast_open) talk_to_itself(c);
            return;
        case __NR_sendmsg:
            if (third & fast_open) talk_to_itself(c);
            return look_at_message(c, number, a);
        case __NR_sendmmsg:
            return look_at_message(c, number, a);
        case __NR_close_range:
            if (third & CLOSE_RANGE_UNSHARE) return stop_batching(c);
            return leave_all_to_linux(c);
        case number_of_pidfd_getfd:
            return leave_all_to_linux(c);
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
void note(const context& c, std::uint64_t number, const std::uint64_t* a, std::uint64_t result) {
    switch (number) {
        case __NR_accept:
        case __NR_accept4:
            the_descriptors.accepts(a[0]);
            [[fallthrough]];
        case __NR_socket:
            return the_descriptors.opened(result, descriptor_kind::fresh);
        case __NR_epoll_create:
        case __NR_epoll_create1:
            return the_descriptors.opened(result, descriptor_kind::loop);
        case __NR_listen:
            return the_descriptors.listens(a[0]);
        case __NR_epoll_ctl: {
            if (static_cast<std::uint32_t>(a[1]) == EPOLL_CTL_DEL)
                return the_descriptors.unregistered(a[0], a[2]);
            epoll_event event;
            if (!syscall::copy_in(&event, a[3], sizeof event)) return the_descriptors.forget(a[2]);
            // An instance that is watched by another one shows what its owner has read already.
            if (the_descriptors.is(a[2], descriptor_kind::loop)) {
                the_descriptors.forget(a[2]);
                return leave_all_to_linux(c);
            }
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

constexpr bool is_wait_with_mask(std::uint64_t number) {
    return number == __NR_epoll_pwait || number == number_of_epoll_pwait2;
}

/// Whether only this thread waits for the instance; else its sockets are left to Linux for good.
bool owns_loop(const context& c, std::uint64_t loop) {
    if (!the_descriptors.is(loop, descriptor_kind::loop)) return false;
    if (the_descriptors.find(loop)->belongs_to(c.id)) return true;
    the_descriptors.forget(loop);
    leave_all_to_linux(c);
    return false;
}

void wait_for_loop(context& c, const std::uint64_t* a) {
    arch::guest_area& area = *c.kernel_area;
    const bool owns = owns_loop(c, a[0]);
    const bool may_wait = static_cast<std::uint32_t>(a[3]) != 0;
    bool ready = false;
    if (c.loop.timer_runs && may_wait) {
        // Under load something is ready, and the timer need not be touched.
        area.arguments[3] = 0;
        make_call(c);
        area.arguments[3] = a[3];
        ready = c.stop.where != position::system_call || area.result != 0;
        if (!ready) stop_timer(c);
    }
    if (!ready) make_call(c);
    if (owns && c.stop.where == position::system_call && static_cast<long>(area.result) > 0)
        begin_turn(c, a[0], a[1], static_cast<unsigned>(area.result));
}

/// As Linux does, once.
std::uint64_t take_error(descriptor& d) {
    const long error = d.error;
    d.error = 0;
    return static_cast<std::uint64_t>(-error);
}

/// A write that has returned already has failed: the program learns of it behind the bytes that it
/// can still read, or when it asks.
void report_error(descriptor& d, std::uint64_t number, const std::uint64_t* a,
                  std::uint64_t& result) {
    constexpr std::uint32_t socket_level = 1, pending_error = 4;  // SOL_SOCKET, SO_ERROR
    const auto got = static_cast<long>(result);
    if (reads(number) && (got == 0 || got == -base::error::again)) {
        result = take_error(d);
    } else if (number == __NR_getsockopt && got == 0 &&
               static_cast<std::uint32_t>(a[1]) == socket_level &&
               static_cast<std::uint32_t>(a[2]) == pending_error) {
        const int error = d.error;
        if (syscall::copy_out(a[3], &error, sizeof error)) d.error = 0;
    }
}

void make_process(context& c, std::uint64_t flags) {
    const bool thread = flags & CLONE_THREAD;
    if (thread && (flags & CLONE_FILES)) return make_call(c);
    hold_turns();
    end_other_turns(c);
    the_descriptors.share_all();
    // Threads with descriptors of their own, and processes that share this memory and go on beside it.
    const bool for_good = thread || (flags & (CLONE_VM | CLONE_VFORK)) == CLONE_VM;
    if (for_good) syscall::answer_outside(syscall::served::event_loops);
    make_call(c);
    // In the child nothing is held.
    if (c.stop.where != position::application && !for_good) release_turns();
}

/// Carries out the call in `c`, and what it means for turns.
void make_with_turns(context& c) {
    // The child of a vfork has descriptors of its own, and no turn is under way.
    if (c.thread.shares_memory_only) return make_call(c);
    arch::guest_area& area = *c.kernel_area;
    const std::uint64_t number = static_cast<std::uint32_t>(area.number);
    const std::uint64_t a[6] = {area.arguments[0], area.arguments[1], area.arguments[2],
                                area.arguments[3], area.arguments[4], area.arguments[5]};
    end_turn(c);
    const concern about = concern_of(number);
    if (about != concern::nothing) look_at_descriptors(c, number, a);
    if (about == concern::everything) end_other_turns(c);
    if (is_wait(number, a)) return wait_for_loop(c, a);
    if (is_wait_with_mask(number) && !owns_loop(c, a[0])) end_other_turns(c);
    if (c.loop.timer_runs && !cannot_wait(number, a)) stop_timer(c);
    switch (number) {
        case __NR_fork:
        case __NR_vfork:
        case __NR_clone:
        case __NR_clone3:
            return make_process(c, clone_flags(number, a));
        default:
            break;
    }
    descriptor* const d = about == concern::descriptors ? the_descriptors.find(a[0]) : nullptr;
    if (d && d->error && writes(number)) [[unlikely]] {
        area.result = take_error(*d);
        return;
    }
    prepare(c, number, a);
    make_call(c);
    if (c.stop.where != position::system_call) return;
    if (d && d->error) [[unlikely]]
        report_error(*d, number, a, area.result);
    if (static_cast<long>(area.result) >= 0) note(c, number, a, area.result);
}

}  // namespace

void on_system_call(context& c) {
    syscall::take_call(c, make_with_turns);
}

}  // namespace xos::loops
