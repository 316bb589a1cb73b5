// Signal handlers, masks and timers, each set by one line.
#pragma once

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include <initializer_list>
#include <string>

namespace xos::test {

inline void handle(int signal, void (*handler)(int), int flags = 0) {
    struct sigaction action {};
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigaction(signal, &action, nullptr);
}

inline void handle(int signal, void (*handler)(int, siginfo_t*, void*), int flags = 0) {
    struct sigaction action {};
    action.sa_sigaction = handler;
    action.sa_flags = flags | SA_SIGINFO;
    sigaction(signal, &action, nullptr);
}

inline sigset_t set_of(std::initializer_list<int> signals) {
    sigset_t s;
    sigemptyset(&s);
    for (int one : signals) sigaddset(&s, one);
    return s;
}

/// This thread's.
inline std::string mask_text() {
    sigset_t s;
    pthread_sigmask(SIG_SETMASK, nullptr, &s);
    std::string text;
    for (int i = 1; i < 65; i++) text += sigismember(&s, i) == 1 ? std::to_string(i) + " " : "";
    return text;
}

/// SIGALRM.
inline void timer(long microseconds, bool periodic) {
    itimerval t{{0, periodic ? microseconds : 0}, {0, microseconds}};
    setitimer(ITIMER_REAL, &t, nullptr);
}

}  // namespace xos::test
