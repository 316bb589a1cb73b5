// Signals that others send, and what handlers may do.
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "tests/guest/handlers.hpp"
#include "tests/guest/machine_state.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

std::atomic<int> count{0};
std::atomic<bool> flag{false};
alignas(16) char signal_stack[65536];

void counting(int) {
    count++;
}

void timer(long microseconds, bool periodic) {
    itimerval t{{0, periodic ? microseconds : 0}, {0, microseconds}};
    setitimer(ITIMER_REAL, &t, nullptr);
}
void no_timer() {
    timer(0, false);
}

std::string mask_text() {
    sigset_t s;
    pthread_sigmask(SIG_SETMASK, nullptr, &s);
    std::string text;
    for (int i = 1; i < 65; i++) text += sigismember(&s, i) == 1 ? std::to_string(i) + " " : "";
    return text;
}

bool on_signal_stack() {
    const char here = 0;
    return &here >= signal_stack && &here < signal_stack + sizeof signal_stack;
}

volatile int end_of_recursion = -1;
[[gnu::noinline]] int endless(int n) {
    volatile char room[4096];
    room[0] = static_cast<char>(n);
    return n == end_of_recursion ? 0 : endless(n + 1) + room[0];
}

void use_signal_stack() {
    stack_t stack{};
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    sigaltstack(&stack, nullptr);
}

sigjmp_buf back;

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

TEST_CASE("a handler runs on the alternate stack that it asked for") {
    same([] {
        lines all;
        static bool on;
        for (int flags : {0, SA_ONSTACK}) {
            handle(
                SIGUSR1, [](int) { on = on_signal_stack(); }, flags);
            use_signal_stack();
            stack_t now;
            sigaltstack(nullptr, &now);
            raise(SIGUSR1);
            all.push_back(show("on", on) + " flags " + std::to_string(now.ss_flags));
        }
        static stack_t in_handler;
        static int change, error;
        handle(
            SIGUSR1,
            [](int) {
                sigaltstack(nullptr, &in_handler);
                stack_t other{};
                other.ss_flags = SS_DISABLE;
                change = sigaltstack(&other, nullptr);
                error = errno;
            },
            SA_ONSTACK);
        raise(SIGUSR1);
        all.push_back(show("flags", in_handler.ss_flags) + " " +
                      outcome_of("change", change, error));
        stack_t odd{};
        odd.ss_sp = signal_stack;
        odd.ss_size = 100;
        all.push_back(outcome_of("small", [&] { return sigaltstack(&odd, nullptr); }));
        odd.ss_size = 65536;
        odd.ss_flags = 77;
        all.push_back(outcome_of("flags", [&] { return sigaltstack(&odd, nullptr); }));
        all.push_back(outcome_of("pointer", [&] { return syscall(SYS_sigaltstack, 8, nullptr); }));
        odd.ss_flags = SS_DISABLE;
        all.push_back(outcome_of("disable", [&] { return sigaltstack(&odd, nullptr); }));
        sigaltstack(nullptr, &odd);
        all.push_back(show("flags", odd.ss_flags));
        return all;
    });
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

TEST_CASE("an alternate stack set outside serves inside and the other way round") {
    static bool on;
    handle(
        SIGUSR1, [](int) { on = on_signal_stack(); }, SA_ONSTACK);
    ensure_cell();
    use_signal_stack();
    in_cell([] { return raise(SIGUSR1); });
    CHECK(on);
    in_cell([] {
        stack_t off{};
        off.ss_flags = SS_DISABLE;
        return sigaltstack(&off, nullptr);
    });
    raise(SIGUSR1);
    CHECK_FALSE(on);
    in_cell([] { return use_signal_stack(), 0; });
    raise(SIGUSR1);
    CHECK(on);
}

TEST_CASE("a stack overflow is handled on the alternate stack") {
    handle(
        SIGSEGV, [](int) { siglongjmp(back, on_signal_stack() ? 2 : 3); }, SA_ONSTACK);
    use_signal_stack();
    const int how = same([] {
        const int how = sigsetjmp(back, 1);
        return how ? how : endless(0);
    });
    CHECK(how == 2);
}

TEST_CASE("a stack overflow without an alternate stack ends the process") {
    const auto body = [](bool cell) {
        return in_child([=] {
            handle(SIGSEGV, [](int) { _exit(5); });
            if (cell) {
                ensure_cell();
                enter();
            }
            return endless(0);
        });
    };
    CHECK(body(true) == body(false));
    CHECK(body(false).status == "signal 11");
}

TEST_CASE("what a handler changes in its context takes effect") {
    if (!__builtin_cpu_supports("avx")) return;
    handle(SIGILL, [](int, siginfo_t*, void* c) {
        auto& m = static_cast<ucontext_t*>(c)->uc_mcontext;
        m.gregs[REG_RIP] += 2;
        m.gregs[REG_RBX] = 5;
        m.gregs[REG_R15] = 6;
        m.gregs[REG_EFL] ^= 1 | 64;
        m.fpregs->_xmm[2].element[1] = 0x12345678;
        m.fpregs->mxcsr |= 0x8000;
    });
    const std::string changed = same([] {
        machine_state s = distinct_state(), expected = s;
        expected.gpr[1] = 5;
        expected.gpr[14] = 6;
        expected.flags ^= 1 | 64;
        const std::uint32_t element = 0x12345678;
        std::memcpy(expected.ymm[2] + 4, &element, 4);
        const std::string text = difference(expected, registers_after(event::ud2, s));
        const unsigned mxcsr = _mm_getcsr() & 0x8000;
        _mm_setcsr(0x1f80);
        return text + std::to_string(mxcsr);
    });
    CHECK(changed == "32768");
}

TEST_CASE("a handler starts with a clean state and every register survives it") {
    if (!__builtin_cpu_supports("avx")) return;
    static unsigned mxcsr, x87;
    static std::uint64_t flags;
    handle(SIGALRM, [](int) {
        mxcsr = _mm_getcsr();
        std::uint16_t word;
        asm volatile("fnstcw %0" : "=m"(word));
        x87 = word;
        flags = __builtin_ia32_readeflags_u64() & 0x400;
        asm volatile(
            "vxorps %%ymm0,%%ymm0,%%ymm0\n vxorps %%ymm9,%%ymm9,%%ymm9\n vxorps "
            "%%ymm15,%%ymm15,%%ymm15" ::
                : "xmm0", "xmm9", "xmm15");
        count++;
        flag = true;
    });
    const auto seen = same([] {
        lines all;
        machine_state s = distinct_state();
        s.gpr[4] = reinterpret_cast<std::uint64_t>(&flag);
        for (int i = 0; i < 10; i++) {
            flag = false;
            _mm_setcsr(0x1f80 | 0x2000);
            timer(1000, false);
            all.push_back(difference(s, registers_after(event::spin_on_rsi, s)));
        }
        all.push_back(std::to_string(mxcsr) + " " + std::to_string(x87) + " " +
                      std::to_string(flags) + " " + std::to_string(_mm_getcsr() & 0x2000));
        _mm_setcsr(0x1f80);
        return all;
    });
    CHECK(lines(seen.begin(), seen.end() - 1) == lines(10));
}

TEST_CASE("the frame of a handler holds the whole extended state") {
    static std::string seen;
    handle(SIGUSR1, [](int, siginfo_t*, void* c) {
        const auto* fp =
            reinterpret_cast<const std::uint8_t*>(static_cast<ucontext_t*>(c)->uc_mcontext.fpregs);
        std::uint32_t software[12], magic2;
        std::memcpy(software, fp + 464, sizeof software);
        std::memcpy(&magic2, fp + software[4], 4);
        char text[100];
        snprintf(text, sizeof text, "%x %x %x %x", software[0], software[2] & 7, magic2,
                 static_cast<unsigned>(static_cast<ucontext_t*>(c)->uc_flags & 1));
        seen = text;
    });
    CHECK(same([] {
              raise(SIGUSR1);
              return seen;
          }) == "46505853 7 46505845 1");
}

TEST_CASE("siglongjmp leaves handlers again and again") {
    handle(SIGALRM, [](int) { siglongjmp(back, 1); });
    same([] {
        volatile int jumps = 0;
        if (sigsetjmp(back, 1)) jumps = jumps + 1;
        if (jumps < 20) {
            timer(1000, false);
            for (;;) _mm_pause();
        }
        return std::to_string(jumps) + mask_text();
    });
}

TEST_CASE("handlers nest and return in order") {
    static std::string order;
    handle(SIGUSR1, [](int) {
        order += "1(";
        raise(SIGUSR2);
        order += ")1";
    });
    handle(SIGUSR2, [](int) {
        order += "2(";
        raise(SIGHUP);
        order += ")2";
    });
    handle(SIGHUP, [](int) {
        order += "h";
        asm volatile("ud2");
    });
    handle(SIGILL, [](int, siginfo_t*, void* c) {
        order += "i";
        static_cast<ucontext_t*>(c)->uc_mcontext.gregs[REG_RIP] += 2;
    });
    CHECK(same([] {
              order.clear();
              raise(SIGUSR1);
              return order;
          }) == "1(2(hi)2)1");
}

TEST_CASE("a handler may throw nothing but may use the heap and system calls") {
    static std::string text;
    handle(SIGUSR1, [](int) {
        text = std::string(1000, 'x') + std::to_string(getpid() == syscall(SYS_getpid));
    });
    same([] {
        raise(SIGUSR1);
        return text;
    });
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
        const auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(2000);
        timer(50, false);
        while (std::chrono::steady_clock::now() < end) {
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

TEST_CASE("rt_sigreturn from a frame that is none ends as Linux says") {
    const auto probe = [](void (*body)()) {
        handle(SIGSEGV,
               [](int, siginfo_t* info, void*) { _exit(info->si_code == SI_KERNEL ? 3 : 4); });
        use_signal_stack();
        struct sigaction action {};
        sigaction(SIGSEGV, nullptr, &action);
        action.sa_flags |= SA_ONSTACK;
        sigaction(SIGSEGV, &action, nullptr);
        const int pid = fork();
        if (pid == 0) {
            body();
            _exit(77);
        }
        return status_of(pid);
    };
    SECTION("a frame of nonsense") {
        same([&] {
            return probe([] {
                alignas(64) static char bytes[8192];
                memset(bytes, 0x5a, sizeof bytes);
                asm volatile("movq %0, %%rsp\n movl $15, %%eax\n syscall"
                             :
                             : "r"(bytes + 4096)
                             : "memory");
            });
        });
    }
    SECTION("no memory") {
        same([&] {
            return probe([] {
                asm volatile("movq $4096, %%rsp\n movl $15, %%eax\n syscall" : : : "memory");
            });
        });
    }
}
