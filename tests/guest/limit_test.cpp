// Threads and children of a process that has given up limits, privileges, or its sight of /dev.
#include <fcntl.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

/// In a process of its own, which can spoil what it likes; natively and in the cell.
lines same_in_child(const std::function<lines()>& probe) {
    const auto in_process = [&](bool cell) {
        int ends[2];
        if (pipe(ends)) return lines{"no pipe"};
        const ended e = in_child([&] {
            const lines seen = cell ? in_cell(probe) : probe();
            for (const auto& line : seen) dprintf(ends[1], "%s\n", line.c_str());
            return 0;
        });
        close(ends[1]);
        lines seen{e.status + " " + e.errors, ""};
        char letter;
        while (read(ends[0], &letter, 1) == 1) {
            if (letter == '\n')
                seen.emplace_back();
            else
                seen.back() += letter;
        }
        close(ends[0]);
        return seen;
    };
    const lines native = in_process(false), cell = in_process(true);
    CHECK(cell == native);
    CHECK(native.front() == "exit 0 ");
    return native;
}

void* answer(void* argument) {
    return static_cast<char*>(argument) + 1;
}

/// Whether threads and children still start, and threads in children.
std::string starts() {
    const auto thread = [] {
        pthread_t t;
        void* result = nullptr;
        if (int error = pthread_create(&t, nullptr, answer, nullptr)) return 100 + error;
        pthread_join(t, &result);
        return result ? 0 : 1;
    };
    const int before = thread();
    const int pid = fork();
    if (pid == 0) _exit(thread());
    int status = 0;  // status_of() would need a descriptor
    waitpid(pid, &status, 0);
    return "thread " + std::to_string(before) + ", child " + describe(status);
}

std::string limit() {
    rlimit now{}, old_call{}, new_call{};
    getrlimit(RLIMIT_NOFILE, &now);
    syscall(SYS_getrlimit, RLIMIT_NOFILE, &old_call);
    syscall(SYS_prlimit64, getpid(), RLIMIT_NOFILE, nullptr, &new_call);
    std::string text = std::to_string(now.rlim_cur) + "/" + std::to_string(now.rlim_max);
    for (const rlimit& other : {old_call, new_call}) {
        if (other.rlim_cur != now.rlim_cur || other.rlim_max != now.rlim_max) text += " or not";
    }
    return text;
}

std::string set(rlim_t soft, rlim_t hard) {
    const rlimit wanted{soft, hard};
    return outcome_of("set", [&] { return setrlimit(RLIMIT_NOFILE, &wanted); }) + " " + limit();
}

/// The highest descriptor that there is, and the error of the next one.
std::string highest() {
    int last = -1, next;
    while ((next = open("/dev/null", O_RDONLY)) >= 0) last = next;
    const int error = errno;
    for (int fd = 20; fd <= last; fd++) close(fd);
    return std::to_string(last) + " " + std::to_string(error);
}

}  // namespace

TEST_CASE("threads and children start under a lowered limit of descriptors") {
    const lines seen = same_in_child([] {
        lines l{set(60, 60), highest(), starts(), highest(), limit()};
        // Every descriptor is taken.
        while (open("/dev/null", O_RDONLY) >= 0) {
        }
        l.push_back(starts());
        l.push_back(set(200, 300));  // root may
        l.push_back(set(40, 30));
        l.push_back(set(7, 9));
        l.push_back(starts());
        return l;
    });
    CHECK(seen[2] == "59 24");
}

TEST_CASE("a lowered limit of descriptors stays for who has no privileges") {
    same_in_child([] {
        lines l{set(60, 80)};
        l.push_back(outcome_of("setuid", [] { return setuid(65534); }));
        l.push_back(set(80, 80));
        l.push_back(set(60, 100));
        l.push_back(set(60, 70));
        l.push_back(set(60, 80));
        l.push_back(highest());
        l.push_back(starts());
        l.push_back(limit());
        const int pid = fork();
        if (pid == 0) _exit(limit() == "60/70" && set(60, 80).starts_with("set=-1") ? 5 : 6);
        l.push_back(status_of(pid));
        return l;
    });
}

TEST_CASE("a program that is started has the limit of descriptors that was set") {
    same_in_child([] {
        lines l{set(50, 60)};
        const auto run = [](int pid) {
            if (pid == 0) {
                const char* script =
                    "test $(ulimit -S -n) -eq 50 && test $(ulimit -H -n) -eq 60 && exit 4; exit 5";
                execl("/bin/sh", "sh", "-c", script, nullptr);
                _exit(127);
            }
            return status_of(pid);
        };
        l.push_back(run(fork()));
        l.push_back(run(vfork()));
        l.push_back(limit());
        return l;
    });
}

TEST_CASE("threads and children start without the right to open the device") {
    const lines seen = same_in_child([] {
        lines l{outcome_of("setgid", [] { return setgid(65534); })};
        l.push_back(outcome_of("setuid", [] { return setuid(65534); }));
        l.push_back(starts());
        l.push_back(starts());
        return l;
    });
    CHECK(seen[3] == "thread 0, child exit 0");
}

TEST_CASE("threads and children start where the device cannot be seen") {
    const lines seen = same_in_child([] {
        lines l{outcome_of("chroot", [] { return chroot("/proc"); })};
        l.push_back(outcome_of("access", [] { return access("/dev/kvm", F_OK); }));
        l.push_back(starts());
        return l;
    });
    CHECK(seen[3] == "thread 0, child exit 0");
}
