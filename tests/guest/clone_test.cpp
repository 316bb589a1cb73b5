// What Linux checks before it makes a child, and what the child leaves behind or is told.
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

/// By clone3, `size` bytes of arguments; a child ends at once.
std::string clone3_says(const void* arguments, std::size_t size) {
    errno = 0;
    const long r = syscall(SYS_clone3, arguments, size);
    if (r == 0) _exit(7);
    return r < 0 ? strerrorname_np(errno) : status_of(static_cast<int>(r));
}

/// Enough calls and time for a child that began natively to have a vCPU.
void stay_a_while() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(3);
    while (std::chrono::steady_clock::now() < end) {
    }
    for (int i = 0; i < 70; i++) syscall(SYS_getppid);
}

}  // namespace

TEST_CASE("clone takes an exit signal for a sibling, and ignores that of a thread") {
    same([] {
        lines seen;
        int ends[2];
        if (pipe(ends)) return lines{"no pipe"};
        const int pid = fork();
        if (pid == 0) {
            errno = 0;
            const long sibling = syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0);
            if (sibling == 0) _exit(7);
            const int error = sibling < 0 ? errno : 0;
            (void)!write(ends[1], &error, sizeof error);
            _exit(8);
        }
        int error = -1;
        (void)!read(ends[0], &error, sizeof error);
        close(ends[0]);
        close(ends[1]);
        seen.push_back(outcome_of("clone", error ? -1 : 0, error));
        int sum = 0, n = 0;
        for (int status; waitpid(-1, &status, 0) > 0; n++) sum += WEXITSTATUS(status);
        seen.push_back(show("children", n));
        seen.push_back(show("statuses", sum));

        alignas(16) static char stack[65536];
        static std::atomic<int> word;
        word = 1;
        constexpr int thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                               CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
        const int id = clone(
            [](void*) {
                syscall(SYS_exit, 0);
                return 0;
            },
            stack + sizeof stack, thread | SIGUSR1, nullptr, nullptr, nullptr, &word);
        seen.push_back(outcome_of("thread", id > 0 ? 0 : -1, id > 0 ? 0 : errno));
        seen.push_back(id > 0 && eventually([] { return word == 0; }) ? "ended" : "did not end");
        return seen;
    });
}

TEST_CASE("clone3's arguments are checked in Linux's order") {
    same([] {
        lines seen;
        struct {
            clone_args known;
            std::uint64_t tail[600];
        } big{};
        clone_args& a = big.known;
        a.exit_signal = SIGCHLD;
        static char stack[4096];
        const auto own_stack = reinterpret_cast<std::uint64_t>(stack);
        seen.push_back("plain " + clone3_says(&a, sizeof a));
        seen.push_back("smallest " + clone3_says(&a, 64));
        seen.push_back("too small " + clone3_says(&a, 56));
        seen.push_back("tail of zeros " + clone3_says(&a, sizeof a + 64));
        seen.push_back("a page " + clone3_says(&a, 4096));
        seen.push_back("more than a page " + clone3_says(&a, 4097));
        a.stack = own_stack;
        seen.push_back("a stack, no size " + clone3_says(&a, sizeof a));
        a.stack = 0;
        a.stack_size = 4;
        seen.push_back("a size, no stack " + clone3_says(&a, sizeof a));
        a.stack = own_stack;
        a.stack_size = ~own_stack;
        seen.push_back("a stack beyond the end " + clone3_says(&a, sizeof a));
        // Looked at before the stack, and after it.
        a.set_tid_size = 1;
        seen.push_back("and a size of no array " + clone3_says(&a, sizeof a));
        a.set_tid = 8;
        seen.push_back("and an array that is not there " + clone3_says(&a, sizeof a));
        a = {};
        a.exit_signal = SIGCHLD;
        a.flags = CLONE_PARENT;
        seen.push_back("a sibling's signal " + clone3_says(&a, sizeof a));
        a.flags = CLONE_DETACHED;
        seen.push_back("detached " + clone3_says(&a, sizeof a));
        a.flags = 0;
        big.tail[599] = 0;
        big.tail[10] = 1;
        a.exit_signal = 1000;
        seen.push_back("a tail and a signal " + clone3_says(&a, sizeof a + 96));

        constexpr std::size_t page = 4096;
        auto* pages = static_cast<char*>(
            mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
        munmap(pages + page, page);
        auto* last = new (pages + page - sizeof a) clone_args{};
        last->exit_signal = SIGCHLD;
        seen.push_back("at the end of memory " + clone3_says(last, sizeof a));
        seen.push_back("the tail is not there " + clone3_says(last, sizeof a + 8));
        seen.push_back("the half is not there " +
                       clone3_says(reinterpret_cast<char*>(last) + 40, sizeof a));
        auto* word = reinterpret_cast<std::uint64_t*>(pages + page - 8);
        *word = 1;
        seen.push_back("one, and then nothing " +
                       clone3_says(pages + page - sizeof a - 8, sizeof a + 16));
        munmap(pages, page);
        return seen;
    });
}

TEST_CASE("clone knows what it was asked for in vain") {
    same([] {
        lines seen;
        const auto says = [&](const char* what, unsigned long flags) {
            int id = 0;
            errno = 0;
            const long r = syscall(SYS_clone, flags, 0, &id, &id, 0);
            if (r == 0) _exit(7);
            seen.push_back(std::string(what) + " " +
                           (r < 0 ? strerrorname_np(errno) : status_of(static_cast<int>(r))));
        };
        says("detached", SIGCHLD | CLONE_DETACHED);
        says("detached with a descriptor", SIGCHLD | CLONE_DETACHED | CLONE_PIDFD);
        says("handlers without memory", SIGCHLD | CLONE_SIGHAND);
        says("a thread without handlers", CLONE_THREAD);
        says("a file system of two", SIGCHLD | CLONE_FS | CLONE_NEWNS);
        return seen;
    });
}

TEST_CASE("a child has no children of libxos's to account for") {
    same([] {
        const int pid = fork();
        if (pid == 0) {
            stay_a_while();
            rusage of_children{};
            getrusage(RUSAGE_CHILDREN, &of_children);
            errno = 0;
            const bool none = waitpid(-1, nullptr, __WALL) == -1 && errno == ECHILD;
            const rusage zero{};
            _exit(none && memcmp(&of_children, &zero, sizeof zero) == 0 ? 7 : 8);
        }
        return status_of(pid);
    });
}

TEST_CASE("SIGCHLD that waits for a child while it gets a vCPU goes on waiting") {
    for (const bool handled : {false, true}) {
        CAPTURE(handled);
        struct sigaction action {};
        action.sa_handler = handled ? [](int) {} : SIG_DFL;
        sigaction(SIGCHLD, &action, nullptr);
        same([] {
            const int pid = fork();
            if (pid == 0) {
                sigset_t only;
                sigemptyset(&only);
                sigaddset(&only, SIGCHLD);
                sigprocmask(SIG_BLOCK, &only, nullptr);
                sigqueue(getpid(), SIGCHLD, {.sival_int = 41});
                stay_a_while();
                siginfo_t info{};
                const timespec at_once{};
                const int signal = sigtimedwait(&only, &info, &at_once);
                const bool last = sigtimedwait(&only, nullptr, &at_once) == -1;
                struct sigaction kept {};
                sigaction(SIGCHLD, nullptr, &kept);
                // A child of its own leaves its status.
                const int grandchild = fork();
                if (grandchild == 0) _exit(5);
                _exit(signal == SIGCHLD && last && kept.sa_handler != SIG_IGN &&
                              status_of(grandchild) == "exit 5"
                          ? info.si_value.sival_int
                          : 0);
            }
            return status_of(pid);
        });
    }
}

TEST_CASE("a child that computes is not asleep") {
    same([] {
        int asleep = 0;
        for (int round = 0; round < 5; round++) {
            const int pid = fork();
            if (pid == 0) {
                for (;;) syscall(SYS_getppid);
            }
            const std::string name = "/proc/" + std::to_string(pid) + "/stat";
            for (int i = 0; i < 100; i++) {
                FILE* f = fopen(name.c_str(), "r");
                char state = 0;
                if (!f || fscanf(f, "%*d (%*[^)]) %c", &state) != 1) state = '?';
                if (f) fclose(f);
                asleep += state != 'R' && state != 'D';
            }
            kill(pid, SIGKILL);
            waitpid(pid, nullptr, 0);
        }
        return asleep;
    });
}

TEST_CASE("a child that its limit leaves no thread for KVM ends, and says why") {
    ensure_cell();
    const ended e = in_child([] {
        return in_cell([] {
            // A user who has no other process, so that the limit is this test's.
            constexpr uid_t nobody_else = 54321;
            if (setresuid(nobody_else, nobody_else, nobody_else)) return 1;
            const rlimit two{2, 2};
            if (setrlimit(RLIMIT_NPROC, &two)) return 2;
            const int pid = fork();
            if (pid == 0) {
                stay_a_while();
                _exit(7);
            }
            const std::string status = status_of(pid);
            return status == "exit 7" ? 7 : status == "signal 6" || status == "core 6" ? 6 : 3;
        });
    });
    // Since Linux 6.12 KVM needs a thread.
    const bool said = e.errors.find("no thread is left for KVM") != std::string::npos;
    CHECK(e.status == (said ? "exit 6" : "exit 7"));
}
