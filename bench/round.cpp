#include "bench/round.hpp"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <stdexcept>
#include <string>
#include <system_error>
#include <xos/stats.hpp>

namespace xos::bench {

namespace {

/// A thread that enters and leaves may have another vCPU each time, so from outside all of them
/// count.
std::uint64_t exits_so_far() {
    return inside() ? thread_exits() : stats().runs;
}

std::uint64_t processor_time() {
    const auto nanoseconds = [](const timeval& t) {
        return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
               static_cast<std::uint64_t>(t.tv_usec) * 1'000;
    };
    timespec own{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &own);
    rusage children{};
    getrusage(RUSAGE_CHILDREN, &children);
    return static_cast<std::uint64_t>(own.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(own.tv_nsec) + nanoseconds(children.ru_utime) +
           nanoseconds(children.ru_stime);
}

round_result run_here(const side& s, std::uint64_t warm_up, std::uint64_t operations) {
    if (s.setup) s.setup();
    if (warm_up) measured(s, warm_up);
    // To ask takes processor time, too, inside even an exit: the two first ones say how much.
    const std::uint64_t asked = processor_time(), began = processor_time();
    const std::uint64_t before = exits_so_far();
    const std::uint64_t spent = measured(s, operations);
    const std::uint64_t after = exits_so_far();
    const std::uint64_t used = processor_time() - began, for_asking = began - asked;
    if (s.teardown) s.teardown();
    return {spent, s.exits ? s.exits() : after - before, used - std::min(used, for_asking)};
}

/// What a child sends back, in one write.
struct message {
    round_result result;
    char remark[192];
    char failure[256];
};

void copy_text(char* to, std::size_t size, const std::string& text) {
    std::strncpy(to, text.c_str(), size - 1);
}

round_result run_alone(const side& s, std::uint64_t operations) {
    if (s.where == place::child) return run_here(s, 0, 1);
    if (s.where == place::own_process) return run_here(s, warm_up_of(operations), operations);
    // Every thread is inside, as in a program under `xos run`.
    cell_options options = options_of_cell();
    options.serve_break = true;
    start(options);
    const scoped_entry in_the_guest;
    return run_here(s, warm_up_of(operations), operations);
}

message run_as_child(const side& s, std::uint64_t operations) {
    message m{};
    try {
        m.result = run_alone(s, operations);
        copy_text(m.remark, sizeof m.remark, take_remark());
    } catch (const std::exception& e) {
        copy_text(m.failure, sizeof m.failure, e.what());
    }
    return m;
}

round_result run_in_child(const side& s, std::uint64_t operations) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        throw std::system_error(errno, std::system_category(), "pipe2");
    const pid_t child = fork();
    if (child < 0) throw std::system_error(errno, std::system_category(), "fork");
    if (child == 0) {
        const message m = run_as_child(s, operations);
        _exit(write(ends[1], &m, sizeof m) == sizeof m ? 0 : 1);
    }
    close(ends[1]);
    message m{};
    const ssize_t n = read(ends[0], &m, sizeof m);
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    if (n != sizeof m) {
        throw std::runtime_error("the child died before it had a result, with wait status " +
                                 std::to_string(status));
    }
    if (m.failure[0]) throw std::runtime_error(m.failure);
    remark(m.remark);
    return m.result;
}

}  // namespace

std::uint64_t warm_up_of(std::uint64_t operations) {
    return operations / 8 + 1;
}

round_result run_round(const side& s, std::uint64_t operations) {
    switch (s.where) {
        case place::child:
        case place::own_process:
        case place::own_cell:
            return run_in_child(s, operations);
        case place::outside:
            return run_here(s, warm_up_of(operations), operations);
        case place::inside:
            break;
    }
    const scoped_entry in_the_guest;
    return run_here(s, warm_up_of(operations), operations);
}

}  // namespace xos::bench
