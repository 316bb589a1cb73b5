// Signals: when they come, what is blocked, how sigaction and the default actions work.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "tests/guest/handlers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

std::atomic<int> count{0};
std::atomic<bool> flag{false};
void counting(int) {
    count++;
}

void no_timer() {
    timer(0, false);
}

/// A signal in a few milliseconds, or now and then for as long as the guard lives.
struct periodic_alarm {
    explicit periodic_alarm(long microseconds) { timer(microseconds, true); }
    ~periodic_alarm() { no_timer(); }
};

}  // namespace

TEST_CASE("a timer interrupts a loop that computes") {
    handle(SIGALRM, counting);
    same([] {
        count = 0;
        periodic_alarm guard(1000);
        volatile unsigned long n = 0;
        while (count < 30) n = n + 1;
        return n > 0;
    });
}

TEST_CASE("calls that wait are interrupted or restarted as natively") {
    const auto results = same([] {
        lines all;
        int ends[2];
        if (pipe(ends)) abort();
        char byte = 0;
        for (int restart : {0, SA_RESTART}) {
            handle(
                SIGALRM, [](int) { count++; }, restart);
            const auto interrupted = [&](const char* name, auto call) {
                count = 0;
                errno = 0;
                timer(5000, true);
                const long r = call();
                const int error = errno;
                no_timer();
                all.push_back(outcome_of(name, r, error) + (count ? "" : " too early"));
            };
            pollfd p{ends[0], POLLIN, 0};
            const timespec long_time{10, 0};
            interrupted("poll", [&] { return poll(&p, 1, 10000); });
            interrupted("nanosleep", [&] { return nanosleep(&long_time, nullptr); });
            interrupted("clock_nanosleep",
                        [&] { return clock_nanosleep(CLOCK_MONOTONIC, 0, &long_time, nullptr); });
            interrupted("pause", [&] { return pause(); });
            const sigset_t none = set_of({});
            interrupted("sigsuspend", [&] { return sigsuspend(&none); });
            const int set = epoll_create1(0);
            epoll_event event;
            interrupted("epoll_pwait", [&] { return epoll_pwait(set, &event, 1, 10000, &none); });
            close(set);
            if (restart) continue;
            interrupted("read", [&] { return read(ends[0], &byte, 1); });
        }
        static int write_end;
        write_end = ends[1];
        handle(
            SIGALRM,
            [](int) {
                if (++count == 3) (void)!write(write_end, "x", 1);
            },
            SA_RESTART);
        count = 0;
        timer(5000, true);
        const long r = read(ends[0], &byte, 1);
        no_timer();
        all.push_back(show("read restarted", r) + byte +
                      (count >= 3 ? " after three" : " too early"));
        close(ends[0]);
        close(ends[1]);
        return all;
    });
    CHECK(results.back() == "read restarted=1x after three");
}

TEST_CASE("nanosleep reports what is left when it is interrupted") {
    handle(SIGALRM, counting);
    same([] {
        timer(20000, true);  // the first may come before the call
        const timespec ten{10, 0};
        timespec left{};
        const int r = nanosleep(&ten, &left);
        no_timer();
        return r == -1 && errno == EINTR && left.tv_sec == 9;
    });
}

TEST_CASE("a sleep that is restarted ends when it should") {
    handle(SIGALRM, counting, SA_RESTART);
    const bool right = same([] {
        // A stopped and continued sleep is restarted by restart_syscall.
        const int pid = fork();
        if (pid == 0) {
            const timespec t{0, 50'000'000};
            _exit(nanosleep(&t, nullptr) == 0 ? 0 : 1);
        }
        kill(pid, SIGSTOP);
        int status;
        waitpid(pid, &status, WUNTRACED);
        kill(pid, SIGCONT);
        return status_of(pid) == "exit 0";
    });
    CHECK(right);
}

TEST_CASE("blocked signals wait and sigsuspend lets them in") {
    handle(SIGUSR2, counting);
    handle(SIGUSR1, counting);
    same([] {
        lines all;
        count = 0;
        const sigset_t usr2 = set_of({SIGUSR2}), none = set_of({});
        sigset_t before, pending;
        sigprocmask(SIG_BLOCK, &usr2, &before);
        raise(SIGUSR2);
        raise(SIGUSR2);
        sigpending(&pending);
        all.push_back(show("count", count) + " pending " +
                      std::to_string(sigismember(&pending, SIGUSR2)) + " mask " + mask_text());
        all.push_back(outcome_of("sigsuspend", [&] { return sigsuspend(&none); }) + " " +
                      std::to_string(count) + " mask " + mask_text());
        raise(SIGUSR2);
        const timespec now{};
        siginfo_t info;
        all.push_back(show("sigtimedwait", sigtimedwait(&usr2, &info, &now)) + " " +
                      std::to_string(info.si_code));
        all.push_back(outcome_of("sigtimedwait", [&] { return sigtimedwait(&usr2, &info, &now); }));
        raise(SIGUSR2);
        sigprocmask(SIG_SETMASK, &before, nullptr);
        all.push_back(show("count", count) + mask_text());
        return all;
    });
}

TEST_CASE("the mask in a handler is the one that sigaction asked for") {
    static lines masks;
    same([] {
        masks.clear();
        struct sigaction action {};
        action.sa_handler = [](int) { masks.push_back(mask_text()); };
        action.sa_mask = set_of({SIGHUP, SIGRTMIN + 3});
        sigaction(SIGUSR1, &action, nullptr);
        raise(SIGUSR1);
        action.sa_flags = SA_NODEFER;
        sigaction(SIGUSR1, &action, nullptr);
        raise(SIGUSR1);
        masks.push_back(mask_text());
        return masks;
    });
    CHECK(masks.size() == 3);
}

TEST_CASE("SA_NODEFER nests and without it the signal waits") {
    static std::string order;
    static int depth;
    const auto handler = [](int) {
        const int mine = ++depth;
        order += "<" + std::to_string(mine);
        if (mine < 3) raise(SIGUSR1);
        order += ">";
    };
    const auto results = same([handler] {
        lines all;
        for (int flags : {0, SA_NODEFER}) {
            order.clear();
            depth = 0;
            handle(SIGUSR1, +handler, flags);
            raise(SIGUSR1);
            all.push_back(order);
        }
        return all;
    });
    CHECK(results == lines{"<1><2><3>", "<1<2<3>>>"});
}

TEST_CASE("SA_RESETHAND resets") {
    same([] {
        const int pid = fork();
        if (pid == 0) {
            handle(SIGUSR1, counting, SA_RESETHAND);
            raise(SIGUSR1);
            struct sigaction now;
            sigaction(SIGUSR1, nullptr, &now);
            if (now.sa_handler != SIG_DFL) _exit(1);
            raise(SIGUSR1);
            _exit(2);
        }
        return status_of(pid);
    });
}

TEST_CASE("sigaction shows what was set and not what libxos made of it") {
    handle(SIGHUP, counting, SA_RESTART);
    same([] {
        lines all;
        for (int signal : {SIGHUP, SIGTRAP, SIGCHLD, SIGPIPE, SIGRTMIN}) {
            struct sigaction now {};
            const int r = sigaction(signal, nullptr, &now);
            all.push_back(show("sigaction", r) + (now.sa_handler == counting ? " counting " : " ") +
                          std::to_string(now.sa_flags) +
                          (now.sa_handler == SIG_DFL ? " default" : ""));
        }
        struct sigaction none {};
        all.push_back(outcome_of("kill", [&] { return sigaction(SIGKILL, &none, nullptr); }));
        all.push_back(outcome_of("65", [&] { return sigaction(65, &none, nullptr); }));
        all.push_back(outcome_of(
            "bad new", [&] { return syscall(SYS_rt_sigaction, SIGUSR1, 8, nullptr, 8); }));
        all.push_back(outcome_of(
            "bad old", [&] { return syscall(SYS_rt_sigaction, SIGUSR1, nullptr, 8, 8); }));
        all.push_back(outcome_of(
            "bad size", [&] { return syscall(SYS_rt_sigaction, SIGUSR1, nullptr, &none, 4); }));
        return all;
    });
}

TEST_CASE("SA_SIGINFO tells who sent a signal and how") {
    static std::string info_text;
    handle(SIGRTMIN + 1, [](int signal, siginfo_t* info, void*) {
        info_text += std::to_string(signal) + " " + std::to_string(info->si_code) + " " +
                     std::to_string(info->si_pid == getpid()) + " " +
                     std::to_string(info->si_uid == getuid()) + " " +
                     std::to_string(info->si_value.sival_int) + "; ";
    });
    handle(SIGCHLD, [](int, siginfo_t* info, void*) {
        info_text +=
            "child " + std::to_string(info->si_code) + " " + std::to_string(info->si_status);
        flag = true;
    });
    same([] {
        info_text.clear();
        flag = false;
        sigval v;
        v.sival_int = 1234;
        sigqueue(getpid(), SIGRTMIN + 1, v);
        kill(getpid(), SIGRTMIN + 1);
        pthread_kill(pthread_self(), SIGRTMIN + 1);
        const int pid = fork();
        if (pid == 0) _exit(33);
        eventually([] { return flag.load(); });
        status_of(pid);
        return info_text;
    });
}

TEST_CASE("real-time signals keep their order and their values") {
    static std::vector<int> values;
    values.reserve(100);
    handle(SIGRTMIN + 1, [](int signal, siginfo_t* info, void*) {
        values.push_back(info->si_value.sival_int * 100 + signal);
    });
    handle(SIGRTMIN + 2, [](int signal, siginfo_t* info, void*) {
        values.push_back(info->si_value.sival_int * 100 + signal);
    });
    same([] {
        values.clear();
        const sigset_t both = set_of({SIGRTMIN + 1, SIGRTMIN + 2});
        sigprocmask(SIG_BLOCK, &both, nullptr);
        for (int i = 0; i < 20; i++) {
            sigval v;
            v.sival_int = i;
            sigqueue(getpid(), SIGRTMIN + 2 - i % 2, v);
        }
        sigprocmask(SIG_UNBLOCK, &both, nullptr);
        return values;
    });
    CHECK(values.size() == 20);
}

TEST_CASE("a handler that was installed outside after the start serves inside") {
    ensure_cell();
    static std::atomic<int> where;
    where = -1;
    handle(SIGUSR1, [](int) { where = inside(); });
    const int seen = in_cell([] {
        raise(SIGUSR1);
        return where.load();
    });
    CHECK(seen == 1);
    raise(SIGUSR1);
    CHECK(where == 0);
}

TEST_CASE("default actions end the process as natively") {
    for (int signal : {SIGTERM, SIGKILL, SIGABRT, SIGUSR1, SIGALRM, SIGRTMIN, SIGTRAP, SIGSEGV}) {
        const auto body = [signal](bool cell, bool raised) {
            return in_child([=] {
                if (cell) {
                    ensure_cell();
                    enter();
                }
                if (raised)
                    raise(signal);
                else
                    kill(getpid(), signal);
                return 0;
            });
        };
        CAPTURE(signal);
        for (bool raised : {false, true}) CHECK(body(true, raised) == body(false, raised));
    }
    for (int signal : {SIGCHLD, SIGWINCH, SIGURG}) {
        CAPTURE(signal);
        CHECK(in_child([signal] {
                  ensure_cell();
                  enter();
                  raise(signal);
                  return 3;
              }) == ended{"exit 3", ""});
    }
}

TEST_CASE("a fatal signal reaches a process that spins inside") {
    const ended e = in_child([] {
        ensure_cell();
        enter();
        const int parent = getpid();
        if (fork() == 0) {
            kill(parent, SIGTERM);
            _exit(0);
        }
        for (;;) _mm_pause();
        return 0;
    });
    CHECK(e == ended{"signal 15", ""});
}

TEST_CASE("stop and continue work inside") {
    same([] {
        const int pid = fork();
        if (pid == 0) {
            handle(SIGCONT, counting);
            raise(SIGSTOP);
            _exit(count == 1 ? 4 : 5);
        }
        int status = 0;
        waitpid(pid, &status, WUNTRACED);
        const bool stopped = WIFSTOPPED(status);
        kill(pid, SIGCONT);
        return status_of(pid) + std::to_string(stopped);
    });
}

TEST_CASE("SIGTRAP stays the application's") {
    handle(SIGTRAP, counting);
    CHECK(same([] {
              count = 0;
              raise(SIGTRAP);
              asm volatile("int3");
              raise(SIGTRAP);
              return count.load();
          }) == 3);
}

TEST_CASE("an ignored signal stays ignored") {
    same([] {
        signal(SIGUSR1, SIG_IGN);
        signal(SIGTRAP, SIG_IGN);
        raise(SIGUSR1);
        raise(SIGTRAP);
        signal(SIGUSR1, SIG_DFL);
        signal(SIGTRAP, SIG_DFL);
        return 1;
    });
}

TEST_CASE("a storm of signals loses and disturbs nothing") {
    // The handler sets the timer again, after 50 us to 1 ms: one that fires faster than a slow
    // engine handles signals would leave nothing else to do.
    static unsigned long handled;
    static std::atomic<bool> over{false};
    handle(SIGALRM, [](int) {
        handled = handled + 1;
        if (!over) timer(50 + static_cast<long>(handled * 37 % 1000), false);
    });
    const lines seen = in_cell([] {
        lines all;
        unsigned long calls = 0, wrong = 0, interrupted = 0;
        int ends[2];
        if (pipe(ends)) abort();
        const pid_t pid = getpid();
        // Longer beside other work.
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(2000);
        const auto latest = end + std::chrono::seconds(20);
        timer(50, false);
        for (auto now = end;
             (now = std::chrono::steady_clock::now()) < end || (handled < 100 && now < latest);) {
            double x = 1;
            for (int i = 1; i < 200; i++) x = std::sqrt(x * i + 1);
            static double expected = x;
            if (x != expected) wrong++;
            if (syscall(SYS_getpid) != pid) wrong++;
            char text[8] = "abcdefg", back[8] = "";
            const long w = write(ends[1], text, 8);
            if (w != 8) {
                interrupted++;
                wrong += w != -1 || errno != EINTR;
                continue;
            }
            long r;
            while ((r = read(ends[0], back, 8)) == -1 && errno == EINTR) interrupted++;
            if (r != 8 || std::strcmp(text, back) != 0) wrong++;
            errno = 0;
            if (close(-1) != -1 || errno != EBADF) wrong++;
            auto* p = static_cast<char*>(
                mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
            p[4096] = 1;
            if (munmap(p, 8192)) wrong++;
            calls++;
        }
        over = true;
        no_timer();
        if (calls < 100) all.push_back(show("calls", static_cast<long>(calls)));
        if (handled < 100) all.push_back(show("handled", static_cast<long>(handled)));
        if (wrong) all.push_back(show("wrong", static_cast<long>(wrong)));
        return all;
    });
    CHECK(seen == lines{});
}
