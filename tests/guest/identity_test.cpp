// Who a process and a thread are: what the guest answers itself must be what Linux would say.
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <barrier>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <xos/stats.hpp>
#include <xos/syscall.hpp>

#include "kmod/xos_uapi.h"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

/// Each is asked for often enough that the guest knows the answer afterwards, if it may.
constexpr int often = 4;

/// The number at the end of what a link of /proc leads to.
long last_number(const char* path) {
    char text[64] = {};
    const long n = syscall(SYS_readlink, path, text, sizeof text - 1);
    const char* digits = text + (n > 0 ? n : 0);
    while (digits > text && digits[-1] >= '0' && digits[-1] <= '9') digits--;
    return std::atol(digits);
}

struct credentials {
    unsigned user = 0, effective_user = 0, group = 0, effective_group = 0;
    friend bool operator==(const credentials&, const credentials&) = default;
};

/// By calls that always go to Linux.
credentials from_linux() {
    credentials c;
    unsigned saved = 0;
    syscall(SYS_getresuid, &c.user, &c.effective_user, &saved);
    syscall(SYS_getresgid, &c.group, &c.effective_group, &saved);
    return c;
}

credentials asked() {
    return {static_cast<unsigned>(syscall(SYS_getuid)), static_cast<unsigned>(syscall(SYS_geteuid)),
            static_cast<unsigned>(syscall(SYS_getgid)),
            static_cast<unsigned>(syscall(SYS_getegid))};
}

/// How many questions were answered as Linux does, when they are asked repeatedly.
int right_answers() {
    int right = 0;
    for (int i = 0; i < often; i++) {
        right += syscall(SYS_getpid) == last_number("/proc/self");
        right += syscall(SYS_gettid) == last_number("/proc/thread-self");
        right += asked() == from_linux();
    }
    return right;
}
constexpr int all_right = 3 * often;

std::string name(const credentials& c) {
    return std::to_string(c.user) + "/" + std::to_string(c.effective_user) + " " +
           std::to_string(c.group) + "/" + std::to_string(c.effective_group);
}

/// What is answered, asked repeatedly; all answers are the same.
std::string asked_repeatedly() {
    const credentials first = asked();
    for (int i = 1; i < often; i++) {
        if (asked() != first) return "not the same";
    }
    return name(first) + (first == from_linux() ? "" : " but not Linux's");
}

/// Enough calls and time for a child that began natively to have a vCPU.
void stay_a_while() {
    const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(3);
    while (std::chrono::steady_clock::now() < end) {
    }
    for (int i = 0; i < 70; i++) syscall(SYS_getppid);
}

template <class Body>
std::string forked(Body body) {
    const int pid = fork();
    if (pid == 0) _exit(body());
    return status_of(pid);
}

/// What `body` returns on a thread of its own, which keeps the credentials that it gets.
template <class Body>
lines on_another_thread(Body body) {
    lines seen;
    std::thread([&] { seen = body(); }).join();
    return seen;
}

/// What `body` returns in a forked child.
template <class Body>
std::string said_by_child(Body body) {
    int ends[2];
    if (pipe(ends)) return "no pipe";
    const std::string status = forked([&] {
        std::string text;
        for (const std::string& line : body()) text += line + "; ";
        (void)!write(ends[1], text.data(), text.size());
        return 0;
    });
    close(ends[1]);
    char text[1024];
    const long n = read(ends[0], text, sizeof text);
    close(ends[0]);
    return status + ": " + std::string(text, n > 0 ? static_cast<std::size_t>(n) : 0);
}

bool put(const std::string& path, const std::string& text) {
    const int file = open(path.c_str(), O_WRONLY | O_CLOEXEC);
    const bool written = write(file, text.data(), text.size()) == static_cast<long>(text.size());
    close(file);
    return written;
}

/// A process in a user namespace of its own, which asks before and after its parent maps its ids.
std::string mapped_by_parent() {
    int to_parent[2], to_child[2];
    if (pipe(to_parent) || pipe(to_child)) return "no pipe";
    const int pid = fork();
    if (pid == 0) {
        char byte = 0;
        const std::string before = asked_repeatedly();
        const bool moved = syscall(SYS_unshare, CLONE_NEWUSER) == 0;
        const std::string alone = asked_repeatedly();
        (void)!write(to_parent[1], &byte, 1);
        (void)!read(to_child[0], &byte, 1);
        const std::string mapped = asked_repeatedly();
        _exit(!moved                               ? 1
              : before != "0/0 0/0"                ? 2
              : alone != "65534/65534 65534/65534" ? 3
              : mapped != "5/5 6/6"                ? 4
                                                   : 42);
    }
    char byte = 0;
    (void)!read(to_parent[0], &byte, 1);
    const std::string proc = "/proc/" + std::to_string(pid) + "/";
    const bool done = put(proc + "uid_map", "5 0 1") && put(proc + "gid_map", "6 0 1");
    (void)!write(to_child[1], &byte, 1);
    const std::string status = status_of(pid);
    for (int end : {to_parent[0], to_parent[1], to_child[0], to_child[1]}) close(end);
    return status + (done ? "" : " not mapped");
}

alignas(16) char clone_stack[65536];

int ask_in_clone(void*) {
    return right_answers();
}

/// getpid and getuid fail, everything else is let through.
long refuse_ids(unsigned flags) {
    const auto unless = [](unsigned number) {
        return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    };
    const sock_filter refuse BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77);
    sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                          unless(SYS_getpid),
                          refuse,
                          unless(SYS_getuid),
                          refuse,
                          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
    const sock_fprog program{sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

}  // namespace

TEST_CASE("ids after fork, vfork, clone and in threads") {
    same([] {
        lines seen{show("before", right_answers())};
        seen.push_back("fork: " + forked([] {
                           int right = right_answers();
                           stay_a_while();
                           right += right_answers();
                           const std::string below = forked(right_answers);
                           return right + (below == "exit " + std::to_string(all_right));
                       }));
        const int pid = vfork();
        if (pid == 0) _exit(right_answers());
        seen.push_back("vfork: " + status_of(pid));
        seen.push_back(show("after vfork", right_answers()));
        const int shares =
            clone(ask_in_clone, clone_stack + sizeof clone_stack, CLONE_VM | SIGCHLD, nullptr);
        seen.push_back("clone: " + status_of(shares));
        std::atomic<int> right = 0;
        on_threads(4, [&](unsigned) { right += right_answers(); });
        seen.push_back(show("threads", right));
        std::thread([&] {
            seen.push_back("fork of a thread: " + forked(right_answers));
            seen.push_back(show("that thread", right_answers()));
        }).join();
        seen.push_back(show("afterwards", right_answers()));
        return seen;
    });
}

TEST_CASE("ids in a new namespace of processes") {
    same([] {
        lines seen;
        seen.push_back(forked([] {
            if (syscall(SYS_unshare, CLONE_NEWPID) != 0) return 100 + errno;
            int right = right_answers();
            const int pid = fork();
            if (pid == 0) {
                bool first = true;
                for (int i = 0; i < often; i++)
                    first = first && syscall(SYS_getpid) == 1 && syscall(SYS_gettid) == 1;
                _exit(first ? 42 : 1);
            }
            right += status_of(pid) == "exit 42";
            return right;
        }));
        return seen;
    });
}

TEST_CASE("ids of users and groups belong to a thread, and its own calls change them") {
    same([] {
        return on_another_thread([] {
            lines seen;
            std::barrier<> step(2);
            std::thread other([&] {
                for (int i = 0; i < 4; i++) {
                    step.arrive_and_wait();
                    seen.push_back("other: " + asked_repeatedly());
                    step.arrive_and_wait();
                }
            });
            const auto both = [&](const char* what) {
                seen.push_back(what + (": " + asked_repeatedly()));
                step.arrive_and_wait();
                step.arrive_and_wait();
            };
            both("at first");
            syscall(SYS_setresgid, 1001, 1002, 0);
            syscall(SYS_setresuid, 1003, 1004, 0);
            both("after setres*id");
            syscall(SYS_setresuid, 0, 0, 0);
            syscall(SYS_setresgid, 0, 0, 0);
            both("and back");
            syscall(SYS_setregid, 1005, 1006);
            syscall(SYS_setreuid, 1007, 0);
            both("after setre*id");
            other.join();
            seen.push_back("fork: " + forked([] {
                               return asked_repeatedly() == "1007/0 1005/1006" ? right_answers()
                                                                               : 99;
                           }));
            syscall(SYS_setgid, 1008);
            seen.push_back(asked_repeatedly());
            seen.push_back(outcome_of("not allowed", [] { return syscall(SYS_setuid, -1); }));
            seen.push_back(asked_repeatedly());
            syscall(SYS_setuid, 1009);
            seen.push_back(asked_repeatedly());
            seen.push_back(outcome_of("not allowed", [] { return syscall(SYS_setuid, 0); }));
            seen.push_back(asked_repeatedly());
            return seen;
        });
    });
}

TEST_CASE("the C library changes the ids of all threads") {
    same([] {
        return said_by_child([] {
            lines seen;
            std::barrier<> step(2);
            std::thread other([&] {
                (void)asked_repeatedly();
                step.arrive_and_wait();
                step.arrive_and_wait();
                seen.push_back("other: " + asked_repeatedly());
            });
            (void)asked_repeatedly();
            step.arrive_and_wait();
            seen.push_back(outcome_of("setresgid", [] { return setresgid(1, 2, 3); }));
            seen.push_back(outcome_of("setresuid", [] { return setresuid(4, 5, 6); }));
            step.arrive_and_wait();
            other.join();
            seen.push_back(asked_repeatedly());
            return seen;
        });
    });
}

TEST_CASE("another process maps the ids of a user namespace") {
    CHECK(same(mapped_by_parent) == "exit 42");
}

TEST_CASE("a process joins the user namespace of another") {
    same([] {
        int ends[2], stop[2];
        if (pipe(ends) || pipe(stop)) return std::string("no pipe");
        const int owner = fork();
        if (owner == 0) {
            close(stop[1]);
            char byte = 0;
            if (unshare(CLONE_NEWUSER) != 0) _exit(1);
            (void)!write(ends[1], &byte, 1);
            (void)!read(stop[0], &byte, 1);
            _exit(0);
        }
        char byte = 0;
        (void)!read(ends[0], &byte, 1);
        const std::string proc = "/proc/" + std::to_string(owner) + "/";
        put(proc + "uid_map", "7 0 1");
        put(proc + "gid_map", "8 0 1");
        const std::string joined = forked([&] {
            const std::string before = asked_repeatedly();
            const int space = open((proc + "ns/user").c_str(), O_RDONLY);
            if (syscall(SYS_setns, space, CLONE_NEWUSER) != 0) return 100 + errno;
            return before == "0/0 0/0" && asked_repeatedly() == "7/7 8/8" ? 42 : 1;
        });
        for (int end : {ends[0], ends[1], stop[0], stop[1]}) close(end);
        return joined + ", " + status_of(owner);
    });
}

TEST_CASE("ids that a 32-bit call changes") {
    same([] {
        return on_another_thread([] {
            lines seen{asked_repeatedly()};
            long result = 208;  // setresuid32
            asm volatile("int $0x80"
                         : "+a"(result)
                         : "b"(11), "c"(12), "d"(0)
                         : "memory", "r8", "r9", "r10", "r11");
            seen.push_back(show("setresuid", result));
            seen.push_back(asked_repeatedly());
            return seen;
        });
    });
}

TEST_CASE("ids that the thread changes in host mode") {
    ensure_cell();
    const lines seen = on_another_thread([] {
        const auto become = [](unsigned user) { syscall(SYS_setresuid, user, user, 0); };
        lines seen;
        enter();
        seen.push_back(asked_repeatedly());
        host_call([&] { become(21); });
        seen.push_back(asked_repeatedly());
        leave();
        become(0);
        enter();
        seen.push_back(asked_repeatedly());
        leave();
        return seen;
    });
    CHECK(seen == lines{"0/0 0/0", "21/21 0/0", "0/0 0/0"});
}

TEST_CASE("a filter has its say about ids") {
    same([] {
        lines seen{show("right", right_answers())};
        seen.push_back(forked([&] {
            (void)right_answers();
            if (refuse_ids(0) != 0) return 99;
            int failed = 0;
            for (int i = 0; i < often; i++) {
                failed += syscall(SYS_getpid) == -1 && errno == 77;
                failed += syscall(SYS_getuid) == -1 && errno == 77;
            }
            return failed;
        }));
        seen.push_back(show("right", right_answers()));
        seen.push_back(outcome_of("no program", [] {
            return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, nullptr);
        }));
        seen.push_back(show("right", right_answers()));
        return seen;
    });
}

TEST_CASE("a filter of all threads has its say about ids") {
    ensure_cell();
    CHECK(in_child([] {
              return in_cell([] {
                  std::barrier<> step(2);
                  std::atomic<int> failed = 0;
                  const auto ask = [&] {
                      for (int i = 0; i < often; i++) {
                          failed += syscall(SYS_getpid) == -1 && errno == 77;
                          failed += syscall(SYS_getuid) == -1 && errno == 77;
                          failed += syscall(SYS_geteuid) == 0;
                      }
                  };
                  std::thread other([&] {
                      (void)right_answers();
                      step.arrive_and_wait();
                      step.arrive_and_wait();
                      ask();
                  });
                  (void)right_answers();
                  step.arrive_and_wait();
                  const long installed = refuse_ids(SECCOMP_FILTER_FLAG_TSYNC);
                  // One that Linux refuses changes nothing.
                  const sock_fprog empty{0, nullptr};
                  syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &empty);
                  step.arrive_and_wait();
                  other.join();
                  ask();
                  return installed == 0 ? failed.load() : 99;
              });
          }).status == "exit " + std::to_string(2 * 3 * often));
}

TEST_CASE("who one is makes no exit once it is known") {
    ensure_cell();
    constexpr long numbers[] = {SYS_getpid,  SYS_gettid, SYS_getuid,
                                SYS_geteuid, SYS_getgid, SYS_getegid};
    constexpr int times = 1000;
    const auto before = stats();
    const std::vector<std::uint64_t> exits = in_cell([&] {
        std::vector<std::uint64_t> made;
        (void)right_answers();
        for (long number : numbers) {
            const auto first = thread_exits();
            for (int i = 0; i < times; i++) syscall(number);
            made.push_back(thread_exits() - first);
        }
        return made;
    });
    const auto after = stats();
    CHECK(exits == std::vector<std::uint64_t>(std::size(numbers), 0));
    for (long number : numbers) {
        INFO(number);
        const auto counts = [&](const statistics& s, syscall_path p) {
            return s.syscalls[static_cast<unsigned>(p)][static_cast<unsigned>(number)];
        };
        CHECK(counts(after, syscall_path::local) - counts(before, syscall_path::local) >= times);
        CHECK(counts(after, syscall_path::emulated) - counts(before, syscall_path::emulated) <= 2);
    }
}

TEST_CASE("an application's own answer comes before libxos's, and null brings that back") {
    const auto answer = [] [[gnu::target("general-regs-only")]] (long, long, long, long, long,
                                                                 long) -> long { return 4711; };
    answer_locally(SYS_getpid, answer);
    ensure_cell();
    const auto ask = [] {
        lines seen;
        for (int i = 0; i < often; i++) seen.push_back(show("getpid", syscall(SYS_getpid)));
        return seen;
    };
    const lines first = in_cell(ask);
    answer_locally(SYS_getpid, nullptr);
    const lines second = in_cell(ask);
    answer_locally(SYS_getpid, answer);
    const lines third = in_cell(ask);
    answer_locally(SYS_getpid, nullptr);
    const auto exits = in_cell([] {
        (void)right_answers();
        const auto before = thread_exits();
        for (int i = 0; i < 100; i++) syscall(SYS_getpid);
        return thread_exits() - before;
    });
    const lines own(often, show("getpid", getpid())), theirs(often, show("getpid", 4711));
    CHECK(first == theirs);
    CHECK(second == own);
    CHECK(third == theirs);
    CHECK(exits == 0);
}

TEST_CASE("a vector asks Linux who one is") {
    ensure_cell();
    CHECK(in_cell([] {
        (void)right_answers();
        xos_call calls[2] = {};
        calls[0].number = SYS_getpid;
        calls[1].number = SYS_getuid;
        for (long made = 0; made < 2;) {
            const long more = syscall(XOS_NR_VECTOR, calls + made, 2 - made);
            if (more <= 0) return false;
            made += more;
        }
        return calls[0].result == getpid() && calls[1].result == 0;
    }));
}
