// fork while signals rain, and processes that are killed at any moment.
#include <signal.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <map>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

std::atomic<unsigned> handled{0};

void count_signal(int) {
    handled++;
}

void on_signal(int number, void (*handler)(int), int flags) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(number, &action, nullptr);
}

void every(int which, long microseconds) {
    const itimerval time{{0, microseconds}, {0, microseconds}};
    setitimer(which, &time, nullptr);
}

/// Forks `rounds` times and counts how the children ended.
lines fork_again_and_again(int rounds) {
    std::map<std::string, int> ends;
    std::string text = "of the parent";
    for (int i = 0; i < rounds; i++) {
        const unsigned before = handled;
        const int pid = fork();
        if (pid == 0) {
            // The handlers are there, the timers are not; and this memory is not the parent's.
            text += " no more";
            raise(SIGUSR1);
            void* block = malloc(100000);
            std::memset(block, i, 100000);
            free(block);
            _exit(handled > before && text.size() == 21 ? 7 : 8);
        }
        ends[pid < 0 ? std::strerror(errno) : status_of(pid)]++;
    }
    lines l{text};
    for (const auto& [end, count] : ends) l.push_back(end + " x " + std::to_string(count));
    return l;
}

/// Threads that fork, and compute, for ever.
void fork_for_ever(int progress) {
    for (int t = 0; t < 3; t++) {
        std::thread([=] {
            for (;;) {
                const int pid = fork();
                if (pid == 0) {
                    volatile unsigned sum = 0;
                    for (unsigned i = 0; i < 20000; i++) sum = sum + i;
                    _exit(3);
                }
                int status = 0;
                if (waitpid(pid, &status, 0) != pid || status != 3 << 8) _exit(99);
                const char done = 1;
                if (write(progress, &done, 1) != 1) _exit(98);
            }
        }).detach();
    }
    for (;;) pause();
}

}  // namespace

TEST_CASE("forks succeed while timers fire") {
    on_signal(SIGALRM, count_signal, SA_RESTART);
    on_signal(SIGPROF, count_signal, SA_RESTART);
    on_signal(SIGUSR1, count_signal, SA_RESTART);
    same([] {
        handled = 0;
        every(ITIMER_REAL, 3000);
        every(ITIMER_PROF, 5000);
        lines l = fork_again_and_again(30);
        every(ITIMER_REAL, 0);
        every(ITIMER_PROF, 0);
        return l;
    });
    CHECK(handled > 0);
}

TEST_CASE("forks succeed while other threads send signals") {
    on_signal(SIGUSR1, count_signal, SA_RESTART);
    on_signal(SIGUSR2, count_signal, SA_RESTART);
    same([] {
        handled = 0;
        std::atomic<bool> over{false};
        const pthread_t forking = pthread_self();
        std::thread to_thread([&] {
            for (unsigned seen = 0; !over;) {
                pthread_kill(forking, SIGUSR1);
                // The next one when it has been handled, or fork would never get to run.
                eventually([&] { return handled != seen || over; });
                seen = handled;
            }
        });
        std::thread to_process([&] {
            for (unsigned seen = 0; !over;) {
                kill(getpid(), SIGUSR2);
                eventually([&] { return handled != seen || over; });
                seen = handled;
            }
        });
        lines l = fork_again_and_again(30);
        over = true;
        to_thread.join();
        to_process.join();
        return l;
    });
    CHECK(handled > 0);
}

TEST_CASE("a process that is killed while its threads fork leaves nothing behind") {
    REQUIRE(prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0);
    for (int round = 0; round < 8; round++) {
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        const int pid = fork();
        if (pid == 0) {
            in_cell([&] {
                fork_for_ever(ends[1]);
                return 0;
            });
        }
        close(ends[1]);
        char done;
        for (int i = 0; i < round * 2; i++) REQUIRE(read(ends[0], &done, 1) == 1);
        kill(pid, SIGKILL);
        CHECK(status_of(pid) == "signal 9");
        // Its children, which are this process's now, come to their own end, and so does the pipe.
        int status = 0;
        CHECK(eventually([&] { return waitpid(-1, &status, WNOHANG) < 0; }));
        CHECK(errno == ECHILD);
        while (read(ends[0], &done, 1) == 1) {
        }
        close(ends[0]);
    }
}
