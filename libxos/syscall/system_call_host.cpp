// A `syscall` instruction of the application has left the guest.
#include "kmod/xos_uapi.h"
#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/table.hpp"
#include "libxos/syscall/trace.hpp"

namespace xos::syscall {

using cell::context;
using cell::position;
using cell::taken_back;
using cell::the_cell;

namespace {

constexpr unsigned refused_calls[] = {__NR_modify_ldt, __NR_iopl, __NR_ioperm};

// <asm/unistd_64.h> defines them since Linux 6.11 and 6.18.
constexpr unsigned uretprobe_number = 335, uprobe_number = 336;

struct emulation_list {
    emulation by_number[table_size] = {};

    constexpr emulation_list() {
        for (unsigned number : refused_calls) by_number[number] = refused;
        by_number[__NR_rt_sigaction] = rt_sigaction;
        by_number[__NR_rt_sigreturn] = rt_sigreturn;
        by_number[__NR_sigaltstack] = sigaltstack;
        by_number[__NR_kill] = kill;
        by_number[__NR_tkill] = tkill;
        by_number[__NR_tgkill] = tgkill;
        by_number[__NR_fork] = fork;
        by_number[__NR_vfork] = vfork;
        by_number[__NR_clone] = clone;
        by_number[__NR_clone3] = clone3;
        by_number[__NR_exit] = exit;
        by_number[__NR_exit_group] = exit_group;
        by_number[__NR_execve] = execve;
        by_number[__NR_execveat] = execveat;
        by_number[__NR_readlink] = readlink;
        by_number[__NR_readlinkat] = readlinkat;
        by_number[__NR_arch_prctl] = arch_prctl;
        by_number[__NR_mmap] = mmap;
        by_number[__NR_munmap] = munmap;
        by_number[__NR_mprotect] = mprotect;
        by_number[__NR_pkey_mprotect] = pkey_mprotect;
        by_number[__NR_mremap] = mremap;
        by_number[__NR_shmat] = shmat;
        by_number[__NR_madvise] = madvise;
        by_number[__NR_mlock] = mlock;
        by_number[__NR_mlock2] = mlock2;
        by_number[__NR_mlockall] = mlockall;
        by_number[__NR_mbind] = mbind;
        by_number[__NR_set_mempolicy_home_node] = set_mempolicy_home_node;
        by_number[number_of_mseal] = mseal;
        by_number[__NR_vmsplice] = vmsplice;
        by_number[__NR_io_uring_setup] = io_uring_setup;
        by_number[__NR_io_uring_enter] = io_uring_enter;
        by_number[__NR_io_uring_register] = io_uring_register;
        by_number[__NR_io_setup] = io_setup;
        by_number[__NR_setsockopt] = setsockopt;
        by_number[__NR_userfaultfd] = userfaultfd;
        by_number[__NR_ioctl] = ioctl;
        by_number[__NR_process_madvise] = process_madvise;
        by_number[__NR_seccomp] = seccomp;
        by_number[__NR_prctl] = prctl;
        by_number[__NR_close] = close;
        by_number[__NR_dup2] = dup2;
        by_number[__NR_dup3] = dup3;
        by_number[__NR_close_range] = close_range;
        by_number[__NR_getdents] = getdents;
        by_number[__NR_getdents64] = getdents64;
        by_number[__NR_perf_event_open] = perf_event_open;
        by_number[uretprobe_number] = probe_return;
        by_number[uprobe_number] = probe_return;
        by_number[__NR_rseq] = rseq;
        by_number[__NR_getrlimit] = getrlimit;
        by_number[__NR_setrlimit] = setrlimit;
        by_number[__NR_prlimit64] = prlimit64;
        by_number[__NR_getpid] = getpid;
        by_number[__NR_gettid] = gettid;
        by_number[__NR_getuid] = getuid;
        by_number[__NR_geteuid] = geteuid;
        by_number[__NR_getgid] = getgid;
        by_number[__NR_getegid] = getegid;
        by_number[__NR_setuid] = setuid;
        by_number[__NR_setgid] = setgid;
        by_number[__NR_setreuid] = setreuid;
        by_number[__NR_setregid] = setregid;
        by_number[__NR_setresuid] = setresuid;
        by_number[__NR_setresgid] = setresgid;
        by_number[__NR_setns] = setns;
        by_number[__NR_unshare] = unshare;
    }
};

constexpr emulation_list emulations;

consteval handling handling_of(unsigned number) {
    switch (number) {
#define XOS_SYSCALL(number, name, who, ...) \
    case number:                            \
        return handling::who;
#include "libxos/syscall/table.def"
#undef XOS_SYSCALL
        default:
            return handling::forward;
    }
}

/// The table is what people read; the list is what runs. Checks that both agree.
consteval bool agrees_with_table() {
    for (unsigned n = 0; n < table_size; n++) {
        if ((emulations.by_number[n] != nullptr) != is_own(handling_of(n))) return false;
    }
    return true;
}
static_assert(agrees_with_table(), "table.def and the emulated calls differ");

}  // namespace

emulation emulation_of(std::uint64_t number) {
    return number < table_size ? emulations.by_number[number] : nullptr;
}

void make_call(context& c) {
    arch::guest_area& area = *c.kernel_area;
    const std::uint64_t number = static_cast<std::uint32_t>(area.number);  // as Linux interprets it
    if (const emulation emulate = emulation_of(number)) {
        c.statistics.emulated[number]++;
        const long result = emulate(c, area.arguments);
        if (c.stop.where == position::system_call) area.result = static_cast<std::uint64_t>(result);
        return;
    }
    if (number == XOS_NR_VECTOR) [[unlikely]] {
        area.result = static_cast<std::uint64_t>(the_cell.calls.way.calls(c, area.arguments));
        return;
    }
    const long result = the_cell.calls.way.call(c, &area.number);
    if (result == taken_back) {
        c.stop.where = position::taken_back;
        return;
    }
    c.statistics.forwarded[number < table_size ? number : table_size - 1]++;
    area.result = static_cast<std::uint64_t>(result);
}

void take_call(context& c, void (*make)(context&)) {
    if (c.signals.pending) {
        c.stop.where = position::taken_back;
        return;
    }
    if (tracing()) [[unlikely]]
        return trace_call(c, make);
    make(c);
}

void on_system_call(context& c) {
    take_call(c, make_call);
}

long forward(context& c, std::uint64_t number, const std::uint64_t* a) {
    const std::uint64_t call[7] = {number, a[0], a[1], a[2], a[3], a[4], a[5]};
    const long result = the_cell.calls.way.call(c, call);
    if (result == taken_back) c.stop.where = position::taken_back;
    return result;
}

}  // namespace xos::syscall
