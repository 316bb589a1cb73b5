#include "tools/xos/cell_costs.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <xos/cell.hpp>

#include "kmod/xos_uapi.h"
#include "libxos/arch/guest_layout.h"

namespace xos::tool {

namespace {

using steady = std::chrono::steady_clock;

constexpr auto patience = std::chrono::seconds(30);
constexpr std::size_t rounds = 301;
constexpr std::uint64_t ring0_instructions = 4096;
constexpr std::size_t vector_length = 64;

enum class stage : unsigned { starting, entering, exiting, calling, leaving, done };
constexpr const char* stage_names[] = {
    "starting the cell",     "entering the cell", "leaving the guest and returning to it",
    "forwarding getppid(2)", "leaving the cell",  "ending"};

/// Shared with the child.
struct shared_state {
    volatile stage at;
    char failure[512];
    char mode[16], mode_reason[256];
    cell_costs costs;
};

using samples = std::array<std::uint64_t, rounds>;

std::uint64_t median(samples& s) {
    std::ranges::nth_element(s, s.begin() + rounds / 2);
    return s[rounds / 2];
}

template <class Function>
std::uint64_t median_of(samples& s, Function&& operation) {
    for (auto& sample : s) {
        const std::uint64_t begin = __rdtsc();
        operation();
        sample = __rdtsc() - begin;
    }
    return median(s);
}

/// Of `ring0_instructions`, where this code itself runs at ring 0.
std::uint64_t ring0_ticks(samples& s) {
    return median_of(s, [] {
        auto n = ring0_instructions / 2;
        asm volatile("1: dec %0; jnz 1b" : "+r"(n) : : "cc");
    });
}

void empty_exit() {
    asm volatile("outl %%eax, %0" : : "i"(XOS_PORT_NULL), "a"(0) : "memory");
}

/// The crossings of a vector stop early when a signal comes.
void make_all(std::array<xos_call, vector_length>& calls) {
    for (std::size_t made = 0; made < calls.size();) {
        const long more = syscall(XOS_NR_VECTOR, &calls[made], calls.size() - made, 0ul);
        if (more < 0) throw std::runtime_error("a vector of calls was refused");
        made += static_cast<std::size_t>(more);
    }
}

struct ticks {
    std::uint64_t ring0, exit, entry, leave, both, getppid, native_getppid, vector;
};

/// Of the crossings and their sum: the parts may be nonsense, the sum is not.
void measure_crossings(shared_state& state, ticks& t) {
    static samples entries, leaves, both;
    for (std::size_t i = 0; i < rounds; i++) {
        state.at = stage::entering;
        const std::uint64_t outside = __rdtsc();
        enter();
        const std::uint64_t inside = __rdtsc();
        state.at = stage::leaving;
        const std::uint64_t before = __rdtsc();
        leave();
        const std::uint64_t after = __rdtsc();
        entries[i] = inside - outside;
        leaves[i] = after - before;
        both[i] = after - outside;
    }
    t.entry = median(entries);
    t.leave = median(leaves);
    t.both = median(both);
}

void measure(shared_state& state) {
    static samples s;
    ticks t{};
    const auto begin = steady::now();
    const std::uint64_t begin_ticks = __rdtsc();
    const long parent = syscall(SYS_getppid);
    t.native_getppid = median_of(s, [] { syscall(SYS_getppid); });

    start();
    std::snprintf(state.mode, sizeof state.mode, "%s", name(current_mode()));
    std::snprintf(state.mode_reason, sizeof state.mode_reason, "%s", mode_reason().c_str());
    measure_crossings(state, t);

    state.at = stage::entering;
    enter();
    if (current_mode() == mode::ring0) t.ring0 = ring0_ticks(s);
    state.at = stage::exiting;
    t.exit = median_of(s, empty_exit);
    state.at = stage::calling;
    const bool right = syscall(SYS_getppid) == parent;
    t.getppid = median_of(s, [] { syscall(SYS_getppid); });
    static std::array<xos_call, vector_length> calls;
    for (auto& call : calls) call.number = SYS_getppid;
    t.vector = median_of(s, [] { make_all(calls); });
    state.at = stage::leaving;
    leave();
    if (!right) throw std::runtime_error("getppid(2) forwarded from the guest gave a wrong answer");

    const std::chrono::duration<double, std::nano> elapsed = steady::now() - begin;
    const double ns = elapsed.count() / static_cast<double>(__rdtsc() - begin_ticks);
    auto& c = state.costs;
    c.ring0_instruction = static_cast<double>(t.ring0) * ns / ring0_instructions;
    c.empty_exit = static_cast<double>(t.exit) * ns;
    c.getppid = static_cast<double>(t.getppid) * ns;
    c.getppid_by_vector = static_cast<double>(t.vector) * ns / vector_length;
    c.native_getppid = static_cast<double>(t.native_getppid) * ns;
    c.clocks_agree = t.entry <= t.both && t.leave <= t.both;
    c.entry = static_cast<double>(c.clocks_agree ? t.entry : t.both) * ns;
    c.leave = c.clocks_agree ? static_cast<double>(t.leave) * ns : 0;
}

[[noreturn]] void run_child(shared_state& state, int errors) {
    const rlimit no_core{};
    setrlimit(RLIMIT_CORE, &no_core);
    dup2(errors, STDERR_FILENO);
    dup2(errors, STDOUT_FILENO);
    try {
        measure(state);
        state.at = stage::done;
    } catch (const std::exception& e) {
        std::snprintf(state.failure, sizeof state.failure, "%s", e.what());
    }
    _exit(state.at == stage::done ? 0 : 1);
}

/// Reads until the child has closed its end. False: it had not in time.
bool read_until_end(int from, std::string& text) {
    const auto deadline = steady::now() + patience;
    char buffer[4096];
    for (;;) {
        using namespace std::chrono;
        const auto left = ceil<milliseconds>(deadline - steady::now()).count();
        pollfd waiting{from, POLLIN, 0};
        const int ready = left > 0 ? poll(&waiting, 1, static_cast<int>(left)) : 0;
        if (ready < 0 && errno == EINTR) continue;
        if (ready <= 0) return false;
        const ssize_t n = read(from, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return true;
        if (text.size() < 16384) text.append(buffer, static_cast<std::size_t>(n));
    }
}

std::string how_it_ended(const shared_state& state, bool in_time, int status) {
    if (*state.failure) return state.failure;
    const char* doing = stage_names[static_cast<unsigned>(state.at)];
    if (!in_time) {
        return fmt::format("the cell did not answer within {} seconds, while {}", patience.count(),
                           doing);
    }
    if (WIFSIGNALED(status)) {
        return fmt::format("the cell was killed by signal {} ({}), while {}", WTERMSIG(status),
                           strsignal(WTERMSIG(status)), doing);
    }
    return fmt::format("the cell ended with status {}, while {}", WEXITSTATUS(status), doing);
}

cell_measurement watch_child(shared_state& state, const int (&errors)[2]) {
    cell_measurement m;
    const pid_t child = fork();
    if (child == 0) run_child(state, errors[1]);
    close(errors[1]);
    if (child < 0) {
        m.failure = fmt::format("no child process could be made: {}", std::strerror(errno));
        close(errors[0]);
        return m;
    }
    const bool in_time = read_until_end(errors[0], m.output);
    close(errors[0]);
    if (!in_time) kill(child, SIGKILL);
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    m.mode = state.mode;
    m.mode_reason = state.mode_reason;
    m.complete = in_time && WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (m.complete)
        m.costs = state.costs;
    else
        m.failure = how_it_ended(state, in_time, status);
    return m;
}

}  // namespace

cell_measurement measure_cell() {
    cell_measurement m;
    void* page = mmap(nullptr, sizeof(shared_state), PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED) {
        m.failure =
            fmt::format("no memory to share with a child process: {}", std::strerror(errno));
        return m;
    }
    int errors[2];
    if (pipe2(errors, O_CLOEXEC) < 0) {
        m.failure = fmt::format("no pipe to a child process: {}", std::strerror(errno));
    } else {
        m = watch_child(*static_cast<shared_state*>(page), errors);
    }
    munmap(page, sizeof(shared_state));
    return m;
}

}  // namespace xos::tool
