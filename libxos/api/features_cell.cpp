// Tries out a cell in a child process, because a process cannot stop being one.
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "libxos/api/errors.hpp"
#include "libxos/api/feature_probes.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/probe.hpp"

namespace xos::api {

namespace {

using base::as_long;
using base::raw_syscall;

/// Emulated machines need a good part of a second.
constexpr int patience_milliseconds = 20'000;

/// What the child writes and the parent reads.
struct trial {
    bool done;
    base::outcome result;
    std::uint64_t ring0_picoseconds;
    bool ring0_interpreted;
};

void record(trial& t, base::outcome result) {
    t.result = result;
    t.ring0_picoseconds = cell::the_cell.ring0.picoseconds;
    t.ring0_interpreted = cell::the_cell.ring0.interpreted;
    t.done = true;
}

/// start() measures at most once, enough to choose a mode. This uses up the first vCPU.
void measure_ring0_well(trial& t) {
    constexpr unsigned times = 15;
    auto& cell = cell::the_cell;
    std::uint64_t sorted[times];
    for (unsigned n = 0; n < times; n++) {
        cell::ring0_cost cost;
        auto failed = measure_ring0(cell.context_at(0).cpu, cell.caps, cell.space().root(), cost);
        if (!failed.ok()) return;
        unsigned at = n;
        for (; at > 0 && sorted[at - 1] > cost.picoseconds; at--) sorted[at] = sorted[at - 1];
        sorted[at] = cost.picoseconds;
    }
    t.ring0_picoseconds = sorted[times / 2];
}

// Runs in a copy of one thread of an unknown process: no libc, no handlers of the application.
[[noreturn]] void run_child(trial& t) {
    const cell::kernel_sigaction to_default{};
    for (int s = 1; s <= cell::signal_count; s++) {
        raw_syscall(__NR_rt_sigaction, s, as_long(&to_default), 0, 8);
    }
    const rlimit no_core{};
    raw_syscall(__NR_prlimit64, 0, RLIMIT_CORE, as_long(&no_core), 0);
    const base::outcome started = start_runtime({});
    record(t, started);
    if (started.ok()) measure_ring0_well(t);
    raw_syscall(__NR_exit_group, 0);
    std::abort();
}

features::cell_trial in_words(const trial& t) {
    features::cell_trial r;
    r.can_start = t.result.ok();
    if (!r.can_start) {
        r.error = t.result.error;
        r.failure = explain(t.result);
    }
    r.ring0_nanoseconds = static_cast<double>(t.ring0_picoseconds) / 1000;
    r.ring0_interpreted = t.ring0_interpreted;
    return r;
}

features::cell_trial not_tried(int error, const std::string& why) {
    features::cell_trial r;
    r.error = error;
    r.failure = why;
    if (error) r.failure += std::string(": ") + std::strerror(error);
    return r;
}

/// Runs `run_child` in a copy of this process whose end goes unnoticed: there is no SIGCHLD, and
/// only a wait that asks for such children finds it.
features::cell_trial try_in_child(trial& t) {
    int handle = -1;
    const long child = raw_syscall(__NR_clone, CLONE_PIDFD, 0, as_long(&handle), 0, 0);
    if (child == 0) run_child(t);
    if (child < 0) {
        return not_tried(static_cast<int>(-child),
                         "no child process to try a cell in could be made");
    }
    pollfd ended{handle, POLLIN, 0};
    int answered;
    do {
        answered = poll(&ended, 1, patience_milliseconds);
    } while (answered < 0 && errno == EINTR);
    if (answered == 0) kill(static_cast<pid_t>(child), SIGKILL);
    int status = 0;
    while (waitpid(static_cast<pid_t>(child), &status, __WCLONE) < 0 && errno == EINTR) {
    }
    close(handle);
    if (t.done) return in_words(t);
    if (answered == 0) return not_tried(ETIMEDOUT, "a cell tried out in a child process got stuck");
    return not_tried(0, "a child process that started a cell was killed by signal " +
                            std::to_string(WTERMSIG(status)));
}

}  // namespace

features::cell_trial try_cell() {
    if (cell::the_cell.started) {
        trial own{};
        record(own, base::success);
        return in_words(own);
    }
    void* page =
        mmap(nullptr, page_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) return not_tried(errno, "no memory to share with a child process");
    auto result = try_in_child(*static_cast<trial*>(page));
    munmap(page, page_size);
    return result;
}

}  // namespace xos::api
