// fork, vfork, posix_spawn, exec and exit from inside.
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/guest/machine_state.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

thread_local int per_thread = 1;

/// What a child running `shell_words` by /bin/sh wrote to standard output, and its status.
template <class Start>
std::string output_of(Start start) {
    int ends[2];
    if (pipe(ends)) return "no pipe";
    const int pid = start(ends[1]);
    close(ends[1]);
    std::string text;
    char piece[256];
    pollfd wait{ends[0], POLLIN, 0};
    while (poll(&wait, 1, 10000) == 1) {
        const ssize_t n = read(ends[0], piece, sizeof piece);
        if (n <= 0) break;
        text.append(piece, static_cast<std::size_t>(n));
    }
    close(ends[0]);
    return text + status_of(pid);
}

char shell[] = "/bin/sh", minus_c[] = "-c", words[] = "echo $VALUE; exit 5",
     value[] = "VALUE=from-the-parent";
char* arguments[] = {shell, minus_c, words, nullptr};
char* environment[] = {value, nullptr};

int fork_deeper(int depth) {
    const int pid = fork();
    if (pid != 0) return pid;
    if (depth == 0) _exit(inside() ? 40 : 41);
    const std::string below = status_of(fork_deeper(depth - 1));
    _exit(below.starts_with("exit ") ? std::atoi(below.c_str() + 5) + 1 : 99);
}

}  // namespace

TEST_CASE("a fork's child continues with the parent's registers and memory") {
    same([] {
        per_thread = 17;
        std::string text = "before";
        volatile double number = 1.5;
        const int pid = fork();
        if (pid == 0) {
            const bool right = per_thread == 17 && text == "before" && number == 1.5 &&
                               getpid() == syscall(SYS_getpid) && gettid() == getpid() &&
                               gettid() == syscall(SYS_gettid);
            text += " changed in the child";
            per_thread = 18;
            _exit(right ? 7 : 8);
        }
        return status_of(pid) + text + std::to_string(per_thread);
    });
}

TEST_CASE("a raw fork keeps every register") {
    if (!__builtin_cpu_supports("avx")) return;
    same([] {
        machine_state s = distinct_state();
        s.gpr[0] = SYS_fork;
        const machine_state after = registers_after(event::syscall, s);
        const std::string changed = difference(s, after, 1 | 1 << 2 | 1 << 10);
        if (after.gpr[0] == 0) _exit(changed.empty() ? 7 : 8);
        return changed + status_of(static_cast<int>(after.gpr[0]));
    });
}

TEST_CASE("children can fork again") {
    CHECK(in_cell([] { return status_of(fork_deeper(3)); }) == "exit 43");
}

TEST_CASE("a child forked inside is inside and can leave and enter and start threads") {
    CHECK(in_cell([] {
              const int pid = fork();
              if (pid == 0) {
                  int good = inside();
                  leave();
                  good += !inside();
                  enter();
                  good += inside();
                  std::thread([&] { good += inside(); }).join();
                  on_threads(
                      4, [&](unsigned) { __atomic_fetch_add(&good, inside(), __ATOMIC_RELAXED); });
                  _exit(good);
              }
              return status_of(pid);
          }) == "exit 8");
}

TEST_CASE("a child forked outside a started cell can enter") {
    ensure_cell();
    in_cell([] { return 0; });
    CHECK(in_child([] {
              const bool outside = !inside();
              return in_cell(
                  [=] { return outside && inside() ? getpid() == gettid() ? 3 : 4 : 5; });
          }) == ended{"exit 3", ""});
}

TEST_CASE("one thread of many forks") {
    CHECK(
        in_cell([] {
            std::atomic<bool> stop{false};
            std::vector<std::thread> busy;
            for (int i = 0; i < 4; i++)
                busy.emplace_back([&] {
                    while (!stop) syscall(SYS_getppid);
                });
            std::string all;
            std::thread([&] {
                for (int i = 0; i < 5; i++) {
                    const int pid = fork();
                    if (pid == 0) {
                        std::thread([] { _exit(getpid() == syscall(SYS_getpid) ? 6 : 7); }).join();
                        _exit(9);
                    }
                    all += status_of(pid) + " ";
                }
            }).join();
            stop = true;
            for (auto& t : busy) t.join();
            return all;
        }) == "exit 6 exit 6 exit 6 exit 6 exit 6 ");
}

TEST_CASE("parent and child talk through pipes and shared memory") {
    same([] {
        int down[2], up[2];
        if (pipe(down) || pipe(up)) return std::string("no pipe");
        auto* shared = static_cast<std::atomic<int>*>(
            mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
        const int pid = fork();
        if (pid == 0) {
            close(down[1]);
            char c;
            while (read(down[0], &c, 1) == 1) {
                c = static_cast<char>(c + 1);
                (*shared)++;
                (void)!write(up[1], &c, 1);
            }
            _exit(0);
        }
        close(up[1]);
        close(down[0]);
        std::string text;
        for (char c : {'a', 'b', 'c'}) {
            (void)!write(down[1], &c, 1);
            (void)!read(up[0], &c, 1);
            text += c;
        }
        close(down[1]);
        close(up[0]);
        text += status_of(pid) + std::to_string(*shared);
        munmap(shared, 4096);
        return text;
    });
}

TEST_CASE("vfork and exec run a program") {
    const std::string text = same([] {
        return output_of([](int out) {
            const int pid = vfork();
            if (pid == 0) {
                dup2(out, 1);
                execve(shell, arguments, environment);
                _exit(127);
            }
            return pid;
        });
    });
    CHECK(text == "from-the-parent\nexit 5");
}

namespace {

/// A child without its parent's handlers: what it sees of them, and whether Linux can still be
/// asked about an access (the stack below the mapping is there when it is touched).
std::string child_with_cleared_handlers(std::uint64_t flags) {
    constexpr std::size_t page = 4096;
    signal(SIGUSR1, [](int) {});
    signal(SIGUSR2, SIG_IGN);
    // The hole is smaller than the gap that Linux keeps below such a stack (256 pages), so that no
    // other mapping gets into it; and what is below it is not accessible, which lets the stack grow
    // up to it.
    constexpr std::size_t room = 64 * page, hole = 16 * page;
    char* reserved = static_cast<char*>(
        mmap(nullptr, room, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    munmap(reserved + room - hole, hole);
    char* stack = static_cast<char*>(
        mmap(reserved + room - page, page, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0));
    clone_args arguments{};
    arguments.flags = flags | CLONE_CLEAR_SIGHAND;
    arguments.exit_signal = SIGCHLD;
    volatile int good = 0;
    long pid;
    // In line: a child that borrows the stack may not return.
    asm volatile("syscall"
                 : "=a"(pid)
                 : "a"(SYS_clone3), "D"(&arguments), "S"(sizeof arguments)
                 : "rcx", "r11", "memory");
    if (pid == 0) {
        struct sigaction now {};
        sigaction(SIGUSR1, nullptr, &now);
        good = good + (now.sa_handler == SIG_DFL);
        sigaction(SIGUSR2, nullptr, &now);
        good = good + (now.sa_handler == SIG_IGN);
        stack[-8] = 1;
        good = good + (stack[-8] == 1);
        _exit(good);
    }
    std::string result = status_of(static_cast<int>(pid));
    struct sigaction kept {};
    sigaction(SIGUSR1, nullptr, &kept);
    return result + (kept.sa_handler != SIG_DFL ? ", kept by the parent" : "");
}

}  // namespace

TEST_CASE("a child may begin without handlers") {
    CHECK(same([] { return child_with_cleared_handlers(0); }) == "exit 3, kept by the parent");
    CHECK(same([] { return child_with_cleared_handlers(CLONE_VM | CLONE_VFORK); }) ==
          "exit 3, kept by the parent");
}

TEST_CASE("a vfork's child that exits gives its status") {
    same([] {
        volatile int touched = 0;
        const int pid = vfork();
        if (pid == 0) {
            touched = 9;
            _exit(12);
        }
        return status_of(pid) + std::to_string(touched);
    });
}

TEST_CASE("posix_spawn runs a program with handlers reset") {
    signal(SIGUSR1, [](int) {});
    const std::string text = same([] {
        const std::string out = output_of([](int out) {
            posix_spawn_file_actions_t actions;
            posix_spawn_file_actions_init(&actions);
            posix_spawn_file_actions_adddup2(&actions, out, 1);
            posix_spawnattr_t attributes;
            posix_spawnattr_init(&attributes);
            sigset_t all;
            sigfillset(&all);
            posix_spawnattr_setsigdefault(&attributes, &all);
            posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
            pid_t pid = -1;
            posix_spawn(&pid, shell, &actions, &attributes, arguments, environment);
            posix_spawn_file_actions_destroy(&actions);
            posix_spawnattr_destroy(&attributes);
            return pid;
        });
        struct sigaction kept;
        sigaction(SIGUSR1, nullptr, &kept);
        raise(SIGUSR1);
        return out + std::to_string(kept.sa_handler != SIG_DFL);
    });
    CHECK(text == "from-the-parent\nexit 51");
}

TEST_CASE("posix_spawn of nothing fails") {
    same([] {
        pid_t pid = -1;
        char nothing[] = "/nonexistent";
        char* words[] = {nothing, nullptr};
        return posix_spawn(&pid, nothing, nullptr, nullptr, words, environment);
    });
}

TEST_CASE("fork and exec run a program") {
    same([] {
        return output_of([](int out) {
            const int pid = fork();
            if (pid == 0) {
                dup2(out, 1);
                execve(shell, arguments, environment);
                _exit(127);
            }
            return pid;
        });
    });
}

TEST_CASE("popen and system work") {
    const std::string text = same([] {
        FILE* f = popen("echo through a pipe", "r");
        char line[100] = {};
        if (!fgets(line, sizeof line, f)) return std::string("nothing");
        return line + std::to_string(pclose(f)) + describe(system("exit 9"));
    });
    CHECK(text == "through a pipe\n0exit 9");
}

TEST_CASE("exit statuses are the same") {
    for (int how = 0; how < 5; how++) {
        CAPTURE(how);
        same([how] {
            const int pid = fork();
            if (pid == 0) {
                fflush(nullptr);
                if (how == 0) _exit(300);
                if (how == 1) syscall(SYS_exit, 5);
                if (how == 2) abort();
                if (how == 3) std::thread([] { _exit(6); }).join();
                if (how == 4) std::thread([] { std::quick_exit(8); }).join();
                _exit(99);
            }
            return status_of(pid);
        });
    }
}

TEST_CASE("the main thread may end before the others") {
    same([] {
        const int pid = fork();
        if (pid == 0) {
            std::thread([main = pthread_self()] {
                pthread_join(main, nullptr);
                _exit(23);
            }).detach();
            syscall(SYS_exit, 0);  // pthread_exit would unwind through Catch
        }
        return status_of(pid);
    });
}

TEST_CASE("clone3 and pidfd and wait agree") {
    same([] {
        int handle = -1;
        clone_args args{};
        args.flags = CLONE_PIDFD;
        args.pidfd = reinterpret_cast<std::uint64_t>(&handle);
        args.exit_signal = SIGCHLD;
        const long pid = syscall(SYS_clone3, &args, sizeof args);
        if (pid == 0) _exit(31);
        pollfd wait{handle, POLLIN, 0};
        const int ready = poll(&wait, 1, 10000);
        siginfo_t info{};
        const int r = waitid(P_PIDFD, static_cast<id_t>(handle), &info, WEXITED);
        close(handle);
        return std::vector<int>{ready, r, info.si_status, info.si_pid == pid};
    });
}

TEST_CASE("clone with a stack of its own runs there") {
    same([] {
        alignas(16) static char stack[65536];
        static bool there;
        const int pid = clone(
            [](void*) {
                const char here = 0;
                there = &here >= stack && &here < stack + sizeof stack;
                return there ? 11 : 12;
            },
            stack + sizeof stack, SIGCHLD, nullptr);
        return status_of(pid);
    });
}

TEST_CASE("signals reach a forked child and its handlers are kept") {
    signal(SIGUSR1, [](int) { _exit(19); });
    same([] {
        const int pid = fork();
        if (pid == 0) {
            for (;;) asm volatile("pause");
        }
        kill(pid, SIGUSR1);
        return status_of(pid);
    });
}

TEST_CASE("many forks one after another") {
    CHECK(in_cell([] {
              int good = 0;
              for (int i = 0; i < 20; i++) {
                  const int pid = fork();
                  if (pid == 0) _exit(i);
                  good += status_of(pid) == "exit " + std::to_string(i);
              }
              return good;
          }) == 20);
}

TEST_CASE("what a vfork's child does to its handlers is no business of its parent's") {
    same([] {
        static std::atomic<int> seen;
        seen = 0;
        struct sigaction action {};
        action.sa_handler = [](int) { seen++; };
        sigaction(SIGUSR1, &action, nullptr);
        std::atomic<bool> end{false};
        std::thread busy([&end] {
            while (!end) pthread_kill(pthread_self(), SIGUSR1);
        });
        std::string statuses;
        for (int i = 0; i < 20; i++) {
            const int pid = vfork();
            if (pid == 0) {
                // Linux has given this process a table of its own.
                static struct sigaction standard {};
                sigaction(SIGUSR1, &standard, nullptr);
                const auto until = seen + 20;
                while (seen < until) sched_yield();
                _exit(i);
            }
            statuses += status_of(pid) + " ";
        }
        end = true;
        busy.join();
        sigaction(SIGUSR1, nullptr, &action);
        return statuses + (action.sa_handler != SIG_DFL ? "kept" : "lost");
    });
}

TEST_CASE("clone without CLONE_VM may share the descriptors") {
    same([] {
        lines answers;
        int ends[2];
        if (pipe(ends)) return answers;
        dup2(ends[0], 101);
        const auto flags = static_cast<unsigned long>(CLONE_FILES | SIGCHLD);
        const int pid = static_cast<int>(syscall(SYS_clone, flags, 0, 0, 0, 0));
        if (pid == 0) {
            dup2(ends[1], 100);
            close(101);
            std::thread([] { sched_yield(); }).join();
            _exit(9);
        }
        answers.push_back(status_of(pid));
        answers.push_back(outcome_of("write", [] { return write(100, "x", 1); }));
        answers.push_back(outcome_of("close", [] { return close(101); }));
        answers.push_back(outcome_of("close", [] { return close(100); }));
        std::thread([] { sched_yield(); }).join();
        close(ends[0]);
        close(ends[1]);
        return answers;
    });
}

TEST_CASE("a fork succeeds with the descriptor table full") {
    same([] {
        std::vector<int> all;
        const int null = open("/dev/null", O_RDONLY);
        for (int fd; (fd = dup(null)) >= 0;) all.push_back(fd);
        const int pid = fork();
        if (pid == 0) _exit(errno == EMFILE ? 4 : 5);
        for (int fd : all) close(fd);
        close(null);
        return status_of(pid);
    });
}

TEST_CASE("a child that is stopped and continued as it starts goes on") {
    same([] {
        std::string statuses;
        for (int i = 0; i < 40; i++) {
            const int pid = fork();
            if (pid == 0) _exit(i);
            for (int k = 0; k < 5; k++) {
                kill(pid, SIGSTOP);
                kill(pid, SIGCONT);
            }
            statuses += status_of(pid) + " ";
        }
        return statuses;
    });
}
