// A signal whose frame has no room: Linux raises SIGSEGV instead, which a handler may settle.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "tests/guest/handlers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

alignas(16) char signal_stack[65536];
char* refused;  // a stack that cannot be written
sigjmp_buf back;
std::string seen;

void use_stack(char* stack) {
    stack_t s{};
    s.ss_sp = stack;
    s.ss_size = sizeof signal_stack;
    sigaltstack(&s, nullptr);
}

/// Made where it is used: in the cell it may be memory of which Linux does not know the rights.
void make_refused_stack(int rights = PROT_NONE) {
    refused = static_cast<char*>(
        mmap(nullptr, sizeof signal_stack, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(refused, sizeof signal_stack, rights);
}

std::string blocked_now() {
    sigset_t now;
    sigprocmask(SIG_BLOCK, nullptr, &now);
    std::string text;
    for (int signal : {SIGSEGV, SIGHUP, SIGUSR1, SIGUSR2})
        text += sigismember(&now, signal) ? '1' : '0';
    return text;
}

/// What a handler of SIGSEGV is told, and the mask that it has and gives back.
void note(int signal, siginfo_t* info, void* context) {
    const auto* u = static_cast<const ucontext_t*>(context);
    const char here = 0;
    seen += show("signal", signal) + " " + show("code", info->si_code) + " " +
            show("address", static_cast<long>(reinterpret_cast<std::intptr_t>(info->si_addr))) +
            " " + show("on", &here >= signal_stack && &here < signal_stack + sizeof signal_stack) +
            " blocked " + blocked_now() + " before " +
            std::to_string(sigismember(&u->uc_sigmask, SIGHUP)) +
            std::to_string(sigismember(&u->uc_sigmask, SIGUSR1)) + "; ";
}

void jump_back(int signal, siginfo_t* info, void* context) {
    note(signal, info, context);
    siglongjmp(back, 1);
}

void count_hup(int) {
    seen += "hup; ";
}

/// With all but `signal`'s own flags: its handler would block SIGUSR1.
void handle_hup(int flags) {
    struct sigaction action {};
    action.sa_handler = count_hup;
    action.sa_flags = flags;
    sigaddset(&action.sa_mask, SIGUSR1);
    sigaction(SIGHUP, &action, nullptr);
}

bool has_hup_handler() {
    struct sigaction now {};
    sigaction(SIGHUP, nullptr, &now);
    return now.sa_handler == count_hup;
}

/// Sends a signal to this thread with RSP where nothing can be written.
void raise_on_full_stack(int signal) {
    asm volatile("movq %%rsp, %%rbx\n movq %2, %%rsp\n syscall\n movq %%rbx, %%rsp"
                 :
                 : "a"(SYS_tkill), "D"(syscall(SYS_gettid)), "r"(refused + sizeof signal_stack),
                   "S"(signal)
                 : "rbx", "rcx", "r11", "memory");
}

}  // namespace

TEST_CASE("a frame that an alternate stack refuses becomes a SIGSEGV on the ordinary one") {
    make_refused_stack();
    handle(SIGSEGV, note);
    for (int flags : {0, static_cast<int>(SA_RESETHAND)}) {
        handle_hup(SA_ONSTACK | flags);
        const auto text = same([flags] {
            seen.clear();
            handle_hup(SA_ONSTACK | flags);
            use_stack(refused);
            raise(SIGHUP);
            seen += show("still there", has_hup_handler());
            use_stack(signal_stack);
            handle_hup(SA_ONSTACK | flags);
            raise(SIGHUP);
            return seen + blocked_now();
        });
        CHECK(text.find("signal=11 code=128 address=0 on=0") == 0);
        CHECK(text.find("hup") != std::string::npos);
    }
}

TEST_CASE("a frame that a full stack refuses becomes a SIGSEGV on the alternate one") {
    make_refused_stack();
    handle(SIGSEGV, jump_back, SA_ONSTACK);
    handle_hup(0);
    handle(SIGTRAP, count_hup);
    use_stack(signal_stack);
    for (int signal : {SIGHUP, SIGTRAP}) {
        const auto text = same([signal] {
            seen.clear();
            if (!sigsetjmp(back, 1)) raise_on_full_stack(signal);
            return seen + blocked_now();
        });
        CHECK(text.find("signal=11 code=128 address=0 on=1") == 0);
    }
}

TEST_CASE("memory that the program has made itself inside refuses a frame as well") {
    handle_hup(SA_ONSTACK);
    for (int rights : {PROT_NONE, PROT_READ}) {
        same([rights] {
            seen.clear();
            make_refused_stack(rights);
            handle(SIGSEGV, jump_back, SA_ONSTACK);
            handle_hup(0);
            use_stack(signal_stack);
            if (!sigsetjmp(back, 1)) raise_on_full_stack(SIGHUP);
            handle(SIGSEGV, note);
            handle_hup(SA_ONSTACK);
            use_stack(refused);
            raise(SIGHUP);
            mprotect(refused, sizeof signal_stack, PROT_READ | PROT_WRITE);
            raise(SIGHUP);
            // Unmapped altogether.
            munmap(refused, sizeof signal_stack);
            raise(SIGHUP);
            return seen + blocked_now();
        });
    }
}

TEST_CASE("a SIGSEGV that is for one frame only serves one") {
    make_refused_stack();
    handle_hup(0);
    use_stack(signal_stack);
    const auto text = same([] {
        seen.clear();
        handle(SIGSEGV, jump_back, SA_ONSTACK | SA_RESETHAND);
        if (!sigsetjmp(back, 1)) raise_on_full_stack(SIGHUP);
        struct sigaction now {};
        sigaction(SIGSEGV, nullptr, &now);
        return seen + show("handler", now.sa_handler != SIG_DFL);
    });
    CHECK(text.find("handler=0") != std::string::npos);
}

TEST_CASE("a frame without room ends a process that cannot take SIGSEGV") {
    make_refused_stack();
    struct kind {
        const char* name;
        void (*prepare)();
        int signal;
    };
    const kind kinds[] = {
        {"no handler", [] { signal(SIGSEGV, SIG_DFL); }, SIGHUP},
        {"ignored", [] { signal(SIGSEGV, SIG_IGN); }, SIGHUP},
        {"blocked",
         [] {
             handle(SIGSEGV, jump_back, SA_ONSTACK);
             const sigset_t set = set_of({SIGSEGV});
             sigprocmask(SIG_BLOCK, &set, nullptr);
         },
         SIGHUP},
        {"its frame has no room either", [] { handle(SIGSEGV, jump_back); }, SIGHUP},
        {"SIGSEGV itself", [] { handle(SIGSEGV, jump_back); }, SIGSEGV},
    };
    for (const kind& one : kinds) {
        const auto body = [&](bool cell) {
            return in_child([&] {
                handle_hup(0);
                use_stack(signal_stack);
                one.prepare();
                if (cell) {
                    ensure_cell();
                    enter();
                }
                if (!sigsetjmp(back, 1)) raise_on_full_stack(one.signal);
                return 1;
            });
        };
        CAPTURE(one.name);
        CHECK(body(true) == body(false));
        CHECK(body(false).status == "signal 11");
    }
}

TEST_CASE("a SIGSEGV that was sent waits for the handler of the signal before it") {
    handle(SIGSEGV, note);
    handle_hup(0);
    same([] {
        seen.clear();
        const sigset_t set = set_of({SIGSEGV, SIGHUP});
        sigprocmask(SIG_BLOCK, &set, nullptr);
        kill(getpid(), SIGSEGV);
        raise(SIGHUP);
        sigprocmask(SIG_UNBLOCK, &set, nullptr);
        return seen.substr(0, seen.find("address")) + seen.substr(seen.find(" on="));
    });
}
