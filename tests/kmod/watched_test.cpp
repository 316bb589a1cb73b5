// Whoever watches a process's system calls sees each of them; and what signals do to a call.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>

#include "tests/guest/support.hpp"
#include "tests/kmod/machine.hpp"

namespace xos::test {

namespace {

using why = returned::why;
constexpr returned halted{why::halted}, punted{why::punted}, interrupted{why::interrupted};

void handler(int) {}

void handle(int signal, int flags) {
    struct sigaction a {};
    a.sa_handler = handler;
    a.sa_flags = flags;
    sigaction(signal, &a, nullptr);
}

/// Whether `thread` sleeps in the kernel.
bool asleep(int thread) {
    std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
    std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto end = text.rfind(')');
    return end != text.npos && text.compare(end, 3, ") S") == 0;
}

/// Runs `c` on a thread of its own and does `disturb` to it once it sleeps.
struct disturbed {
    returned how;
    std::int64_t result;
};
template <class Disturb>
disturbed make_and(machine& m, const xos_call& c, Disturb disturb) {
    std::atomic<int> thread = 0;
    disturbed d{};
    std::thread caller([&] {
        thread = gettid();
        d.how = m.make(c);
        d.result = m.frame().call.result;
    });
    const bool slept = eventually([&] { return thread != 0 && asleep(thread); });
    disturb(thread.load());
    caller.join();
    CHECK(slept);
    return d;
}

disturbed make_and_signal(machine& m, const xos_call& c) {
    return make_and(m, c, [](int thread) { syscall(SYS_tgkill, getpid(), thread, SIGUSR1); });
}

}  // namespace

TEST_CASE("an interrupted call says how it is to be restarted") {
    machine m;
    handle(SIGUSR1, SA_RESTART);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    char byte;
    auto d =
        make_and_signal(m, call(SYS_read, {static_cast<unsigned>(ends[0]), address_of(&byte), 1}));
    CHECK(d.how == interrupted);
    CHECK(d.result == -XOS_RESTART_SYS);

    timespec long_time{1000, 0};
    d = make_and_signal(m, call(SYS_nanosleep, {address_of(&long_time), 0}));
    CHECK(d.how == interrupted);
    CHECK(d.result == -XOS_RESTART_BLOCK);

    pollfd none{-1, 0, 0};
    d = make_and_signal(m, call(SYS_ppoll, {address_of(&none), 1, 0, 0, 8}));
    CHECK(d.how == interrupted);
    CHECK(d.result == -XOS_RESTART_NO_HANDLER);
    CHECK(m.statistics().interrupted == 3);

    // Calls that say so themselves are not touched.
    const int epoll = static_cast<int>(syscall(SYS_epoll_create1, 0));
    std::uint64_t event[2];
    d = make_and_signal(
        m, call(SYS_epoll_wait, {static_cast<unsigned>(epoll), address_of(event), 1, ~0ull}));
    CHECK(d.how == interrupted);
    CHECK(d.result == -EINTR);
}

TEST_CASE("an interrupted call of a vector is told from those before it") {
    machine m;
    handle(SIGUSR1, SA_RESTART);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    char byte;
    std::vector<xos_call> calls{
        call(SYS_getppid), call(SYS_read, {static_cast<unsigned>(ends[0]), address_of(&byte), 1}),
        call(SYS_getppid)};
    // The clock may have stopped the vector after its first call; then the second comes first.
    const std::vector<xos_call> sleeping(calls.begin() + 1, calls.end());
    auto d = make_and_signal(m, call(XOS_NR_VECTOR, {address_of(sleeping.data()), 2}));
    CHECK(d.how == interrupted);
    CHECK(static_cast<std::uint64_t>(d.result) == XOS_VECTOR_INTERRUPTED);
    CHECK(sleeping[0].result == -XOS_RESTART_SYS);
    CHECK(sleeping[1].result == 0xdead);
}

TEST_CASE("a pending signal comes before the call") {
    machine m;
    handle(SIGUSR1, 0);
    m.frame().call = call(SYS_getppid);
    // Blocked for the thread, but not while it is in KVM_RUN.
    sigset_t all, none;
    sigfillset(&all);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &all, nullptr);
    raise(SIGUSR1);
    sigset_t pending;
    sigpending(&pending);
    CHECK(sigismember(&pending, SIGUSR1) == 1);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    CHECK(m.ring() == halted);
}

TEST_CASE("signals in great number lose no call") {
    machine m;
    handle(SIGALRM, SA_RESTART);
    const itimerval often{{0, 300}, {0, 300}}, never{};
    setitimer(ITIMER_REAL, &often, nullptr);
    m.frame().call = call(SYS_getppid);
    std::uint64_t left = 20'000, punts = 0;
    returned r = m.ring(0, left);
    while (r != halted && r.what != why::failed) {
        punts += r == punted;
        r = m.run();
    }
    setitimer(ITIMER_REAL, &never, nullptr);
    CHECK(r == halted);
    const auto s = m.statistics();
    CHECK(s.calls[SYS_getppid] + punts == left);
    CHECK(s.punted[XOS_PUNT_SIGNAL] == punts);
}

TEST_CASE("a stopped process goes on with its call") {
    machine m;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const int pid = fork();
    if (pid == 0) {
        machine own;
        char byte;
        const auto c = call(SYS_read, {static_cast<unsigned>(ends[0]), address_of(&byte), 1});
        returned r = own.make(c);
        // No handler: what Linux restarts is rung for again.
        while (r == interrupted && own.frame().call.result == -XOS_RESTART_SYS) r = own.make(c);
        _exit(r == halted && own.frame().call.result == 1 ? 0 : 1);
    }
    const auto state = [&] {
        std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
        std::string text((std::istreambuf_iterator<char>(file)), {});
        return text.substr(text.rfind(')') + 2, 1);
    };
    REQUIRE(eventually([&] { return state() == "S"; }));
    kill(pid, SIGSTOP);
    REQUIRE(eventually([&] { return state() == "T"; }));
    kill(pid, SIGCONT);
    REQUIRE(eventually([&] { return state() == "S"; }));
    (void)!write(ends[1], "x", 1);
    CHECK(status_of(pid) == "exit 0");
}

TEST_CASE("seccomp sees every call") {
    const ended child = in_child([] {
        machine m;
        if (m.make(call(SYS_getppid)) != halted) return 1;
        sock_filter code[] = {{BPF_LD | BPF_W | BPF_ABS, 0, 0, 0},
                              {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, SYS_getppid},
                              {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | EXDEV},
                              {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW}};
        const sock_fprog filter{4, code};
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) return 2;
        if (m.make(call(SYS_getppid)) != punted) return 3;
        std::vector<xos_call> calls(2, call(SYS_getppid));
        if (m.make(call(XOS_NR_VECTOR, {address_of(calls.data()), 2})) != punted) return 4;
        return m.statistics().punted[XOS_PUNT_WATCHED] == 2 ? 0 : 5;
    });
    CHECK(child.status == "exit 0");
}

TEST_CASE("a tracer sees every call") {
    const int pid = fork();
    if (pid == 0) {
        machine m;
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        // The tracer has asked for system-call stops now.
        _exit(m.make(call(SYS_getppid)) == punted ? 0 : 1);
    }
    int status;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    REQUIRE(WIFSTOPPED(status));
    while (!WIFEXITED(status) && !WIFSIGNALED(status)) {
        REQUIRE(ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0);
        REQUIRE(waitpid(pid, &status, 0) == pid);
    }
    CHECK(describe(status) == "exit 0");
}

namespace {

class audit_control {
  public:
    audit_control() { REQUIRE(socket_ >= 0); }
    ~audit_control() { close(socket_); }

    /// From then on every new task is marked, for ever.
    void enable() {
        audit_status s{};
        s.mask = AUDIT_STATUS_ENABLED;
        s.enabled = 1;
        ask(AUDIT_SET, &s, sizeof s);
    }
    /// One that nothing here matches: the user whose calls it records does not exist.
    void rule(std::uint16_t request) {
        audit_rule_data r{};
        r.flags = AUDIT_FILTER_EXIT;
        r.action = AUDIT_ALWAYS;
        r.field_count = 1;
        r.fields[0] = AUDIT_UID;
        r.fieldflags[0] = AUDIT_EQUAL;
        r.values[0] = 54321;
        r.mask[SYS_getppid / 32] = 1u << (SYS_getppid % 32);
        ask(request, &r, sizeof r);
    }

  private:
    void ask(std::uint16_t type, const void* data, std::size_t bytes) {
        struct {
            nlmsghdr header;
            unsigned char data[sizeof(audit_rule_data)];
        } m{};
        m.header = {static_cast<std::uint32_t>(NLMSG_LENGTH(bytes)), type,
                    NLM_F_REQUEST | NLM_F_ACK, 1, 0};
        std::memcpy(m.data, data, bytes);
        REQUIRE(send(socket_, &m, m.header.nlmsg_len, 0) == m.header.nlmsg_len);
        struct {
            nlmsghdr header;
            nlmsgerr answer;
        } a{};
        REQUIRE(recv(socket_, &a, sizeof a, 0) > 0);
        REQUIRE(a.header.nlmsg_type == NLMSG_ERROR);
        REQUIRE(a.answer.error == 0);
    }

    int socket_ = socket(AF_NETLINK, SOCK_RAW, NETLINK_AUDIT);
};

}  // namespace

TEST_CASE("audit sees every call as soon as it has a rule") {
    audit_control audit;
    audit.enable();
    const auto observed = [] {
        return in_child([] {
            machine m;
            return m.make(call(SYS_getppid)) == punted ? 10 : 20;
        });
    };
    CHECK(observed().status == "exit 20");
    audit.rule(AUDIT_ADD_RULE);
    CHECK(observed().status == "exit 10");
    audit.rule(AUDIT_DEL_RULE);
    CHECK(observed().status == "exit 20");
}

}  // namespace xos::test
