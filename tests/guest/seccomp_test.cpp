// A program that limits its own system calls goes on natively, as if it had never been inside.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

void say(const char* text) {
    (void)!write(2, text, std::strlen(text));
}

/// Lets write, the end and handlers through; getppid fails, uname traps, the rest kills.
int install_filter(bool by_prctl) {
    const auto load = [](std::size_t at) {
        return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<unsigned>(at));
    };
    const auto answer = [](unsigned what) { return sock_filter BPF_STMT(BPF_RET | BPF_K, what); };
    const auto unless = [](unsigned number) {
        return sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1);
    };
    sock_filter code[] = {load(offsetof(seccomp_data, nr)), unless(SYS_write),
                          answer(SECCOMP_RET_ALLOW),        unless(SYS_exit_group),
                          answer(SECCOMP_RET_ALLOW),        unless(SYS_rt_sigreturn),
                          answer(SECCOMP_RET_ALLOW),        unless(SYS_getppid),
                          answer(SECCOMP_RET_ERRNO | 77),   unless(SYS_uname),
                          answer(SECCOMP_RET_TRAP),         answer(SECCOMP_RET_KILL_PROCESS)};
    const sock_fprog program{sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    return by_prctl ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)
                    : static_cast<int>(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
}

char* protected_page;
volatile char* heap;

void on_trap(int, siginfo_t* info, void*) {
    say(info->si_syscall == SYS_uname ? "trapped uname\n" : "trapped something else\n");
}
void on_fault(int, siginfo_t* info, void*) {
    say(info->si_addr == protected_page ? "refused\n" : "another fault\n");
    _exit(heap[0] == 7 ? 5 : 6);
}

/// Memory, handlers and registers are as they were; then the filter's own answers.
template <bool ByPrctl>
int limited() {
    heap = static_cast<volatile char*>(
        mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    heap[0] = 7;
    protected_page = static_cast<char*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(protected_page, 4096, PROT_READ);
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    action.sa_sigaction = on_trap;
    sigaction(SIGSYS, &action, nullptr);
    action.sa_sigaction = on_fault;
    sigaction(SIGSEGV, &action, nullptr);
    if (install_filter(ByPrctl) != 0) return 1;
    say("filtered\n");
    if (syscall(SYS_getppid) == -1 && errno == 77) say("getppid fails\n");
    syscall(SYS_uname, nullptr);
    protected_page[0] = 1;
    return 2;
}

int killed() {
    if (install_filter(false) != 0) return 1;
    syscall(SYS_getpid);
    return 2;
}

int strict() {
    syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT);
    say("strict\n");
    syscall(SYS_exit, 9);
    return 2;
}

/// What a bad filter is answered, and the program goes on.
int refused() {
    const sock_fprog empty{0, nullptr};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const long r = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &empty);
    say(outcome_of("empty filter", r, errno).c_str());
    return 3;
}

ended inside(int (*body)()) {
    return in_child([body] {
        start({.mode = wanted_mode(), .transport = wanted_transport(), .native_children = true});
        enter();
        return body();
    });
}

}  // namespace

TEST_CASE("a program with a seccomp filter goes on as it would natively") {
    const ended natively = in_child(limited<false>);
    CHECK(natively.status == "exit 5");
    CHECK(natively.errors == "filtered\ngetppid fails\ntrapped uname\nrefused\n");
    CHECK(inside(limited<false>) == natively);
    CHECK(inside(limited<true>) == natively);
}

TEST_CASE("a call that a seccomp filter kills for ends the process") {
    const ended natively = in_child(killed);
    CHECK(natively.status == "signal 31");
    CHECK(inside(killed) == natively);
}

TEST_CASE("strict seccomp leaves read, write and the end") {
    const ended natively = in_child(strict);
    CHECK(natively.errors == "strict\n");
    CHECK(inside(strict) == natively);
}

TEST_CASE("a seccomp filter that Linux refuses changes nothing") {
    const ended natively = in_child(refused);
    CHECK(inside(refused) == natively);
}
