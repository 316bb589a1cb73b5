// execve: the next program gets into a cell as this one did, or runs natively, as the policy says.
//
// Linux decides whether the file is executed at all. Only a file that certainly can be executed is
// executed differently than the application asked, and if that fails, the application's own call is
// made.
#include <linux/fcntl.h>

#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/text.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/exec_vectors.hpp"

namespace xos::syscall {

using base::as_long;
using base::is_error;
using base::raw_syscall;
using cell::context;
using cell::position;
using cell::the_cell;
using program::follow;
using program::launch_plan;
using program::program_file;
using program::program_kind;
using program::way;

namespace {

struct request {
    std::uint64_t number;
    const std::uint64_t* call;
    int directory;
    std::uint64_t path, arguments, environment;
    int flags;
};

long execute_loader(context& c, const launch_plan& plan, const exec_vectors& vectors,
                    bool unnamed) {
    if (!unnamed) {
        const std::uint64_t call[6] = {reinterpret_cast<std::uint64_t>(plan.executed),
                                       vectors.arguments(), vectors.environment()};
        return forward(c, __NR_execve, call);
    }
    // The loader learns from its own name how this Linux names such a process.
    const long fd = raw_syscall(__NR_open, as_long(plan.executed), O_PATH | O_CLOEXEC);
    if (is_error(fd)) return fd;
    const std::uint64_t call[6] = {static_cast<std::uint64_t>(fd),
                                   reinterpret_cast<std::uint64_t>(""), vectors.arguments(),
                                   vectors.environment(), AT_EMPTY_PATH};
    const long result = forward(c, __NR_execveat, call);
    raw_syscall(__NR_close, fd);
    return result;
}

long execute_preloaded(context& c, const request& r, const exec_vectors& vectors) {
    std::uint64_t call[6];
    for (unsigned i = 0; i < 6; i++) call[i] = r.call[i];
    call[r.number == __NR_execve ? 2 : 3] = vectors.environment();
    return forward(c, r.number, call);
}

void note_outside(const char* path, const char* why) {
    __atomic_fetch_add(&the_cell.program.outside_starts, 1, __ATOMIC_RELAXED);
    if (!the_cell.reports.at_exit) return;
    base::text<4400> line;
    (line << "xos: process ").dec(static_cast<std::uint64_t>(raw_syscall(__NR_getpid)));
    line << " starts " << path << " outside: it " << why << "\n";
    line.write_to(the_cell.reports.fd);
}

long natively(context& c, const request& r, const char* path) {
    if (!names_own_program(path)) return forward(c, r.number, r.call);
    const std::uint64_t call[6] = {reinterpret_cast<std::uint64_t>(the_cell.program.path),
                                   r.arguments, r.environment};
    return forward(c, __NR_execve, call);
}

launch_plan plan(program_file& file, const request& r, const char* path) {
    if (the_cell.program.policy.successors == follow::none) return {};
    const bool own = names_own_program(path);
    if (own)
        program::inspect(file, AT_FDCWD, the_cell.program.path, 0);
    else
        program::inspect(file, r.directory, path, r.flags);
    const bool may_be_inside =
        file.what != program_kind::linux_decides && file.what != program_kind::outside;
    return plan_launch(file, the_cell.program.policy,
                       {.traced_from_a_cell = may_be_inside && is_traced_from_a_cell(),
                        .must_have_kvm = the_cell.program.policy.successors_fall_back,
                        .is_own_program = own});
}

long execute(context& c, const request& r) {
    char path[program_file::path_size];
    if (!the_cell.program.policy.governs || copy_in_string(path, r.path, sizeof path) < 0)
        return forward(c, r.number, r.call);
    program_file file;
    const launch_plan chosen = plan(file, r, path);
    if (chosen.how == way::outside) note_outside(*path ? path : "a file", chosen.why);
    if (chosen.in_cell()) {
        exec_vectors vectors;
        const program::start_request asked{r.directory, path};
        if (vectors.make(c, chosen, file, asked, r.arguments, r.environment)) {
            const long result = *chosen.executed
                                    ? execute_loader(c, chosen, vectors, asked.is_unnamed())
                                    : execute_preloaded(c, r, vectors);
            if (c.stop.where == position::taken_back) return result;
        }
    }
    return natively(c, r, path);
}

long replace_program(context& c, const request& r) {
    // libxos's SIGTRAP handler becomes the default action on exec, like every handler; an ignored
    // SIGTRAP must stay ignored.
    const cell::kernel_sigaction& trap_action = c.signals.actions->of[cell::sig_trap];
    if (trap_action.handler == 1) {
        raw_syscall(__NR_rt_sigaction, cell::sig_trap, as_long(&trap_action), 0, 8);
    }
    const bool likely = exec_is_likely(r.number, r.call);
    // A child that borrows this memory has no statistics of its own.
    if (the_cell.reports.at_exit && !c.thread.shares_memory_only && likely) {
        const memory::held guard(memory::the_locks.reporting);
        the_cell.reports.at_exit("exec");
    }
    const bool ignored_sys = c.native.running && c.signals.actions->of[cell::sig_sys].handler == 1;
    if (ignored_sys) restore_sys_action(c);
    if (likely) the_cell.descriptor_limit.make_real();
    const long result = execute(c, r);
    if (ignored_sys) take_sys_action();
    if (trap_action.handler == 1) {
        const auto ours = cell::trampoline_for(trap_action);
        raw_syscall(__NR_rt_sigaction, cell::sig_trap, as_long(&ours), 0, 8);
    }
    return result;
}

}  // namespace

bool exec_is_likely(std::uint64_t number, const std::uint64_t* a) {
    constexpr long execute = 1, at_both = AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW;
    const bool at = number == __NR_execveat;
    const long directory = at ? static_cast<long>(a[0]) : AT_FDCWD;
    const long path = static_cast<long>(at ? a[1] : a[0]);
    const long flags = AT_EACCESS | (at ? static_cast<long>(a[4]) & at_both : 0);
    const long r = raw_syscall(__NR_faccessat2, directory, path, execute, flags);
    return r == 0 || r == -base::error::nosys;
}

long execve(context& c, const std::uint64_t* a) {
    return replace_program(c, {__NR_execve, a, AT_FDCWD, a[0], a[1], a[2], 0});
}

long execveat(context& c, const std::uint64_t* a) {
    return replace_program(
        c, {__NR_execveat, a, static_cast<int>(a[0]), a[1], a[2], a[3], static_cast<int>(a[4])});
}

}  // namespace xos::syscall
