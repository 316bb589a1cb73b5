// The frame that a handler runs on: its stack, the state in it, and the ways out of it.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "tests/guest/handlers.hpp"
#include "tests/guest/machine_state.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

alignas(16) char signal_stack[65536];

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

std::atomic<int> count{0};
std::atomic<bool> flag{false};

}  // namespace

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
