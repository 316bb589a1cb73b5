// Threads and processes: fork, vfork, clone, exit.
#include <linux/sched.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/failure_text.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/trap/signals.hpp"

namespace xos::syscall {

using base::as_long;
using base::raw_syscall;
using cell::clone_arguments;
using cell::context;
using cell::position;
using cell::the_cell;

std::uint64_t guest_fs(context& c) {
    return c.cpu.read_special().fs.base;
}

bool hold_application(context& c, std::uint64_t& mask) {
    mask = trap::block_signals(c);
    if (c.signals.pending) {
        trap::apply_mask(c, mask);
        c.stop.where = position::taken_back;
        return false;
    }
    cell::application_registers(c, c.saved);
    c.cpu.read_xsave(c.fpu);
    return true;
}

void make_machine_of_child(context& c) {
    if (auto failed = cell::make_own_machine(&c); !failed.ok()) {
        const cell::failure_text text = cell::text_of(failed);
        base::text<512> reason;
        reason << "the child of a fork could not get a VM: " << text.what << "; " << text.advice;
        cell::die(nullptr, reason.terminated(), static_cast<unsigned>(failed.error));
    }
}

namespace {

constexpr std::uint64_t sigchld = 17;

/// The Linux call that makes a child: clone(2) accepts what clone3 refuses, and a system-call
/// filter may let only one of them through.
struct way {
    std::size_t size_for_clone3;
};
constexpr way clone2{0};

long make_child(const clone_arguments& a, way by, context* runs) {
    const std::uint64_t call[6] = {
        __NR_clone, a.flags | a.exit_signal, a.stack + a.stack_size, a.parent_tid, a.child_tid,
        a.tls};
    const std::uint64_t call3[6] = {__NR_clone3, reinterpret_cast<std::uint64_t>(&a),
                                    by.size_for_clone3};
    return xos_clone(by.size_for_clone3 ? call3 : call, runs);
}

/// Runs in the child: same memory, but the VM's descriptors are dead (-EIO) and are closed.
void continue_in_child(context& c, std::uint64_t fs, std::uint64_t mask, std::uint64_t flags) {
    c.thread.id = static_cast<std::uint32_t>(raw_syscall(__NR_gettid));
    cell::leave_parent(
        &c, flags & CLONE_FILES ? cell::descriptor_table::shared : cell::descriptor_table::copied);
    if (flags & CLONE_CLEAR_SIGHAND) cell::take_over_signals(*c.signals.actions);
    if (the_cell.program.native_children && !the_cell.guard.hides) {
        c.signals.mask = mask;
        arch::write_fs_base(fs);
        start_natively(c);  // returns if Linux cannot do it
    }
    make_machine_of_child(c);
    c.cpu.write_fs(fs);
    c.cpu.write_xsave(c.fpu);
    cell::resume_at(c, c.saved);
    trap::apply_mask(c, mask);
}

long fork_process(context& c, clone_arguments args, way by, std::uint64_t mask) {
    const std::uint64_t fs = args.flags & CLONE_SETTLS ? args.tls : guest_fs(c);
    if (args.stack) c.saved.rsp = args.stack + args.stack_size;
    c.saved.rax = 0;
    args.stack = args.stack_size = 0;
    memory::the_locks.take_all();
    c.signals.actions->lock.lock_shared();
    const long pid = make_child(args, by, nullptr);
    if (pid == 0) {
        c.signals.actions->lock.reset();
        continue_in_child(c, fs, mask, args.flags);
    } else {
        c.signals.actions->lock.unlock_shared();
        memory::the_locks.give_back_all();
        trap::apply_mask(c, mask);
    }
    return pid;
}

/// Starts a thread, or a child that borrows this memory until it execs: another vCPU of the same
/// VM.
long start_sharing_memory(context& c, clone_arguments args, way by, std::uint64_t mask) {
    base::outcome failure;
    context* child = cell::take_context(failure);
    if (!child) {
        report_thread_refusal(failure);
        trap::apply_mask(c, mask);
        return -base::error::again;
    }
    const bool thread = args.flags & CLONE_THREAD;
    arch::general_registers r = c.saved;
    if (args.stack) r.rsp = args.stack + args.stack_size;
    r.rax = 0;
    cell::resume_at(*child, r);
    child->signals.mask = mask;
    child->thread.shares_memory_only = !thread;
    if (!thread && (args.flags & CLONE_VFORK)) child->signals.alternate = c.signals.alternate;
    child->cpu.write_fs(args.flags & CLONE_SETTLS ? args.tls : guest_fs(c));
    child->cpu.write_xsave(c.fpu);

    child->signals.actions = c.signals.actions;
    if (!(args.flags & CLONE_SIGHAND)) {
        child->own_actions.copy_from(*c.signals.actions);
        child->signals.actions = &child->own_actions;
        child->thread.handlers_cleared = args.flags & CLONE_CLEAR_SIGHAND;
    }
    args.stack = reinterpret_cast<std::uint64_t>(child) + sizeof(context);
    args.stack_size = child->loop_stack - args.stack;
    const long id = make_child(args, by, child);
    const bool back_from_vfork = !thread && (args.flags & CLONE_VFORK);
    if (id < 0 || back_from_vfork) cell::release(*child);
    trap::apply_mask(c, mask);
    return id;
}

long start(context& c, const clone_arguments& args, way by) {
    std::uint64_t mask;
    if (!hold_application(c, mask)) return 0;
    return args.flags & CLONE_VM ? start_sharing_memory(c, args, by, mask)
                                 : fork_process(c, args, by, mask);
}

/// Works like the kernel's copy_struct_from_user: everything behind the known part must be zero,
/// and is checked first.
long copy_in_extensible(void* to, std::size_t known, std::uint64_t from, std::size_t size) {
    std::uint8_t piece[256];
    for (std::size_t at = known; at < size;) {
        const std::uint64_t left_in_page = page_size - (from + at) % page_size;
        std::size_t n = size - at < sizeof piece ? size - at : sizeof piece;
        if (n > left_in_page) n = left_in_page;
        if (!copy_in(piece, from + at, n)) return -base::error::fault;
        for (std::size_t i = 0; i < n; i++) {
            if (piece[i]) return -base::error::toobig;
        }
        at += n;
    }
    return copy_in(to, from, size < known ? size : known) ? 0 : -base::error::fault;
}

/// What clone3 demands of a stack.
bool is_stack(const clone_arguments& a) {
    if (!a.stack || !a.stack_size) return !a.stack && !a.stack_size;
    const std::uint64_t end = a.stack + a.stack_size;
    return end > a.stack && end < memory::user_end;
}

/// Finds "kvm-nx-lpage-re" and the like. Since Linux 6.12 a VM has kernel threads in its process's
/// own thread group, and a process whose last thread only exits would wait for them for ever.
bool is_kernel_worker(const char* task) {
    base::text<64> path;
    path << "/proc/self/task/" << task << "/comm";
    char name[5] = {};
    const long fd = raw_syscall(__NR_open, as_long(path.terminated()), 0);
    if (fd < 0) return false;
    raw_syscall(__NR_read, fd, as_long(name), 4);
    raw_syscall(__NR_close, fd);
    return name[0] == 'k' && name[1] == 'v' && name[2] == 'm' && name[3] == '-';
}

/// Whether the process has no other thread, apart from KVM's.
bool only_thread(const context& c) {
    if (!cell::only_thread_inside()) return false;
    struct listed_thread {
        std::uint64_t inode, offset;
        std::uint16_t length;
        std::uint8_t type;
        char name[];
    };
    alignas(8) char buffer[4096];
    const long fd = raw_syscall(__NR_open, as_long("/proc/self/task"), 0200000 /* O_DIRECTORY */);
    if (fd < 0) return false;
    bool alone = true;
    for (long n;
         alone && (n = raw_syscall(__NR_getdents64, fd, as_long(buffer), sizeof buffer)) > 0;) {
        for (long at = 0; alone && at < n;) {
            const auto& e = *reinterpret_cast<const listed_thread*>(buffer + at);
            at += e.length;
            std::uint32_t id = 0;
            for (const char* digit = e.name; *digit >= '0' && *digit <= '9'; digit++) {
                id = id * 10 + static_cast<std::uint32_t>(*digit - '0');
            }
            if (id != 0 && id != c.thread.id && !is_kernel_worker(e.name)) alone = false;
        }
    }
    raw_syscall(__NR_close, fd);
    return alone;
}

}  // namespace

long fork(context& c, const std::uint64_t*) {
    return start(c, {.exit_signal = sigchld}, clone2);
}

long vfork(context& c, const std::uint64_t*) {
    return start(c, {.flags = CLONE_VM | CLONE_VFORK, .exit_signal = sigchld}, clone2);
}

long clone(context& c, const std::uint64_t* a) {
    return start(c,
                 {.flags = a[0] & 0xffffff00u,
                  .pidfd = a[2],
                  .child_tid = a[3],
                  .parent_tid = a[2],
                  .exit_signal = a[0] & 0xff,
                  .stack = a[1],
                  .tls = a[4]},
                 clone2);
}

long clone3(context& c, const std::uint64_t* a) {
    constexpr std::uint64_t first_version = 64;
    if (a[1] > page_size) return -base::error::toobig;
    if (a[1] < first_version) return -base::error::inval;
    clone_arguments args{};
    const std::size_t size = a[1] < sizeof args ? a[1] : sizeof args;
    if (const long failed = copy_in_extensible(&args, sizeof args, a[0], a[1])) return failed;
    if (!is_stack(args)) {
        // Other errors that Linux finds come first. Linux would not see a bad stack, because
        // libxos's stack takes its place.
        args.stack = 0;
        args.stack_size = 1;
        const std::uint64_t refused[6] = {reinterpret_cast<std::uint64_t>(&args), size};
        return forward(c, __NR_clone3, refused);
    }
    return start(c, args, {size});
}

long exit(context& c, const std::uint64_t* a) {
    trap::block_signals(c);
    if (c.thread.shares_memory_only) raw_syscall(__NR_exit, static_cast<long>(a[0]));
    if (static_cast<long>(c.thread.id) == raw_syscall(__NR_getpid))
        the_cell.process.leader_status = a[0];
    if (only_thread(c)) {
        // A process's exit status is that of its first thread, whenever that one ended.
        const bool leader_gone =
            the_cell.process.leader_status != cell::process_state::still_running;
        const std::uint64_t status[1] = {leader_gone ? the_cell.process.leader_status : a[0]};
        return exit_group(c, status);
    }
    xos_end_thread(&c.busy, static_cast<long>(a[0]));
}

long exit_group(context& c, const std::uint64_t* a) {
    if (the_cell.reports.at_exit && !c.thread.shares_memory_only) {
        // Kept for ever: a second thread that ends the process must not cut the report short.
        memory::the_locks.reporting.lock();
        the_cell.reports.at_exit("exit");
    }
    if (the_cell.process.shares_descriptors && cell::only_thread_inside())
        cell::close_own_descriptors();
    for (;;) raw_syscall(__NR_exit_group, static_cast<long>(a[0]));
}

long arch_prctl(context& c, const std::uint64_t* a) {
    constexpr std::uint64_t set_gs = 0x1001, set_fs = 0x1002, get_fs = 0x1003, get_gs = 0x1004,
                            set_cpuid = 0x1012, enable_shadow_stack = 0x5001;
    switch (a[0]) {
        case cell::is_inside_a_cell:
            return 0;
        case set_fs: {
            const long r = forward(c, __NR_arch_prctl, a);
            if (r == 0) c.cpu.write_fs(a[1]);
            return r;
        }
        case get_fs: {
            const std::uint64_t base = guest_fs(c);
            return copy_out(a[1], &base, sizeof base) ? 0 : -base::error::fault;
        }
        case set_gs:
        case get_gs:
            report_refusal(__NR_arch_prctl, "arch_prctl(ARCH_SET_GS or ARCH_GET_GS)",
                           "GS is libxos's");
            return -base::error::inval;
        case enable_shadow_stack:
            report_refusal(__NR_arch_prctl, "arch_prctl(ARCH_SHSTK_ENABLE)",
                           "the guest has no shadow stacks, and host mode changes stacks");
            return -base::error::opnotsupp;
        case set_cpuid:
            if (a[1]) return forward(c, __NR_arch_prctl, a);
            report_refusal(__NR_arch_prctl, "arch_prctl(ARCH_SET_CPUID, 0)",
                           "CPUID does not fault in the guest");
            return -base::error::nodev;
        default:
            return forward(c, __NR_arch_prctl, a);
    }
}

/// Answers like a kernel without it. Linux does not know where the guest was when its thread was
/// preempted inside KVM_RUN (kernel/rseq.c: no registers, no fix-up), so a critical section would
/// continue where it must start again.
long rseq(context&, const std::uint64_t*) {
    return -base::error::nosys;
}

}  // namespace xos::syscall
