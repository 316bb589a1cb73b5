// The scheduler's tests, outside a cell or inside:
//
//     xos-sched-test [--xos-mode=ring0|ring3|pvm|auto] [--seed=N] [Catch2's options and test names]
#define CATCH_CONFIG_RUNNER
#include <poll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>

#include "tests/sched/support.hpp"
#ifdef XOS_TEST_IN_CELL
#include <xos/cell.hpp>
#endif

namespace xos::sched::test {

namespace {
std::uint64_t chosen_seed = std::random_device()();
bool emulated = false;
}  // namespace

std::uint64_t seed() {
    return chosen_seed;
}

bool at_full_speed() {
#if defined(XOS_SCHED_ASAN) || defined(XOS_SCHED_TSAN)
    return false;
#else
    return !emulated;
#endif
}

unsigned scaled(unsigned n) {
    return at_full_speed() ? n : std::max(1u, n / 20);
}

ended in_child(const std::function<void()>& body) {
    const int errors = memfd_create("stderr", 0);
    std::fflush(nullptr);  // the _exit of a sanitizer writes what is left, too
    const int pid = fork();
    if (pid == 0) {
        dup2(errors, 2);
        const rlimit none{0, 0};
        setrlimit(RLIMIT_CORE, &none);
        body();
        _exit(0);
    }
    const int handle = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
    pollfd end{handle, POLLIN, 0};
    const bool hung = poll(&end, 1, 20000) == 0;
    if (hung) kill(pid, SIGKILL);
    close(handle);
    int status = 0;
    waitpid(pid, &status, 0);
    ended e;
    e.status = hung                  ? "hung"
               : WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                                     : "exit " + std::to_string(WEXITSTATUS(status));
    char text[8192];
    const ssize_t n = pread(errors, text, sizeof text, 0);
    if (n > 0) e.errors.assign(text, static_cast<std::size_t>(n));
    close(errors);
    return e;
}

std::int64_t processor_time() {
    timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return t.tv_sec * 1'000'000'000 + t.tv_nsec;
}

}  // namespace xos::sched::test

int main(int argc, char** argv) {
    using namespace xos::sched::test;
    std::vector<char*> rest;
    const char* mode = nullptr;
    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "--seed=", 7) == 0)
            chosen_seed = std::strtoull(argv[i] + 7, nullptr, 10);
        else if (strncmp(argv[i], "--xos-mode=", 11) == 0)
            mode = argv[i] + 11;
        else
            rest.push_back(argv[i]);
    }
    std::printf("seed %llu\n", static_cast<unsigned long long>(chosen_seed));
    Catch::Session session;
    if (session.applyCommandLine(static_cast<int>(rest.size()), rest.data())) return 2;
    if (!mode) return session.run();
#ifdef XOS_TEST_IN_CELL
    emulated = true;
    for (xos::mode m : {xos::mode::automatic, xos::mode::ring0, xos::mode::ring3, xos::mode::pvm}) {
        if (std::string_view(mode) != xos::name(m)) continue;
        xos::start({.mode = m});
        const xos::scoped_entry inside;
        return session.run();
    }
#endif
    std::fprintf(stderr, "xos-sched-test: no mode %s here\n", mode);
    return 2;
}
