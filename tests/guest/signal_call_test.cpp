// What the calls about signals answer to nonsense.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdint>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

TEST_CASE("Linux keeps of an action what it knows, and says what is wrong in its order") {
    struct raw_action {
        std::uint64_t handler, flags, restorer, mask;
    };
    const auto set = [](long signal, const void* wanted, void* old, long size = 8) {
        return outcome_of("sigaction " + std::to_string(signal),
                          [&] { return syscall(SYS_rt_sigaction, signal, wanted, old, size); });
    };
    const auto bad = reinterpret_cast<raw_action*>(8);
    same([&] {
        lines all;
        const raw_action ignore{1, 0, 0, 0};
        for (long signal : {0, 9, 10, 19, 64, 65, -1}) {
            raw_action old{};
            all.push_back(set(signal, bad, nullptr));
            all.push_back(set(signal, nullptr, bad));
            all.push_back(set(signal, &ignore, bad));
            all.push_back(set(signal, nullptr, &old) + " " + std::to_string(old.handler));
            all.push_back(set(signal, bad, bad, 16));
        }
        raw_action kept{0, ~std::uint64_t{0} & ~std::uint64_t{0x400}, 0x1234, ~std::uint64_t{0}};
        all.push_back(set(SIGUSR2, &kept, nullptr) + set(SIGUSR2, nullptr, &kept));
        for (auto value : {kept.handler, kept.flags, kept.restorer, kept.mask})
            all.push_back(std::to_string(value));
        all.push_back(outcome_of(
            "mask", [&] { return syscall(SYS_rt_sigprocmask, SIG_BLOCK, bad, nullptr, 8); }));
        all.push_back(outcome_of(
            "mask", [&] { return syscall(SYS_rt_sigprocmask, SIG_BLOCK, nullptr, bad, 8); }));
        all.push_back(outcome_of("suspend", [&] { return syscall(SYS_rt_sigsuspend, bad, 8); }));
        all.push_back(outcome_of("pending", [&] { return syscall(SYS_rt_sigpending, bad, 8); }));
        all.push_back(outcome_of(
            "wait", [&] { return syscall(SYS_rt_sigtimedwait, bad, nullptr, nullptr, 8); }));
        all.push_back(outcome_of("old stack", [&] { return syscall(SYS_sigaltstack, 0, bad); }));
        return all;
    });
}
