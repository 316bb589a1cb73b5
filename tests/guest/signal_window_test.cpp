// A signal at one chosen instruction of host mode: a tracer steps there and sends it.
#include <signal.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

std::atomic<int> first{0}, second{0};

constexpr unsigned long bit_of(int signal) {
    return 1ul << (signal - 1);
}

/// Of the kernel's, not of libc's.
unsigned long mask_of(int pid) {
    unsigned long mask = 0;
    ptrace(static_cast<__ptrace_request>(PTRACE_GETSIGMASK), pid, sizeof mask, &mask);
    return mask;
}

/// At a SYSCALL that is about to take SIGUSR1 out of the mask: the end of its handler.
bool opens_mask(int pid) {
    user_regs_struct r;
    ptrace(PTRACE_GETREGS, pid, nullptr, &r);
    const long code = ptrace(PTRACE_PEEKTEXT, pid, r.rip, nullptr);
    if ((code & 0xffff) != 0x050f || r.rax != SYS_rt_sigprocmask || r.rdi != SIG_SETMASK)
        return false;
    return !(static_cast<unsigned long>(ptrace(PTRACE_PEEKDATA, pid, r.rsi, nullptr)) &
             bit_of(SIGUSR1));
}

/// Whether the signal was sent at that instruction, and how the child ended.
lines send_when_mask_opens(int pid) {
    int status = 0, pass = 0;
    bool sent = false, stepping = false;
    waitpid(pid, &status, 0);
    ptrace(PTRACE_SETOPTIONS, pid, nullptr, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
    for (;;) {
        ptrace(sent       ? PTRACE_CONT
               : stepping ? PTRACE_SINGLESTEP
                          : PTRACE_SYSCALL,
               pid, nullptr, pass);
        if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status)) break;
        const int stop = WSTOPSIG(status);
        pass = stop == (SIGTRAP | 0x80) || stop == SIGTRAP ? 0 : stop;
        if (sent) continue;
        // SIGUSR1's handler runs, and host mode does something for it.
        stepping = mask_of(pid) == bit_of(SIGUSR1);
        if (stepping && opens_mask(pid)) {
            syscall(SYS_tgkill, pid, pid, SIGUSR2);
            sent = true;
        }
    }
    return {sent ? "sent" : "never sent", describe(status)};
}

}  // namespace

TEST_CASE("a signal between a handler's end and its mask's leaves the mask as it was") {
    const int pid = fork();
    if (pid == 0) {
        struct sigaction action {};
        action.sa_handler = [](int) { first++; };
        sigaction(SIGUSR1, &action, nullptr);
        action.sa_handler = [](int) { second++; };
        sigaction(SIGUSR2, &action, nullptr);
        ensure_cell();
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        raise(SIGSTOP);
        _exit(in_cell([] {
            raise(SIGUSR1);
            sigset_t now;
            sigprocmask(SIG_BLOCK, nullptr, &now);
            return (first == 1 ? 0 : 1) + (second == 1 ? 0 : 2) +
                   (sigismember(&now, SIGUSR1) ? 4 : 0) + (sigismember(&now, SIGUSR2) ? 8 : 0);
        }));
    }
    CHECK(send_when_mask_opens(pid) == lines{"sent", "exit 0"});
}
