// Handlers and masks, set in one line.
#pragma once

#include <signal.h>

#include <initializer_list>

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

}  // namespace xos::test
