#include "libxos/sched/overflow.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "libxos/sched/stacks.hpp"

namespace xos::sched::detail {

namespace {

constexpr std::size_t signal_stack_bytes = std::size_t{64} << 10;

/// A handler looks into it at any time.
std::array<std::atomic<const stack_region*>, 4096> regions;
struct sigaction before_us;

void write_report(const fiber_state& f) noexcept {
    char text[256];
    const int n = std::snprintf(
        text, sizeof text, "xos::sched: fiber %llu \"%s\": stack overflow (%zu KiB at %p)\n",
        static_cast<unsigned long long>(f.id), f.name,
        static_cast<std::size_t>(f.callable - f.stack_low) >> 10, static_cast<void*>(f.stack_low));
    if (n > 0) (void)!write(STDERR_FILENO, text, static_cast<std::size_t>(n));
}

void on_fault(int signal, siginfo_t* info, void* context) {
    for (const auto& r : regions) {
        const stack_region* const region = r.load(std::memory_order_acquire);
        if (!region) continue;
        const std::size_t slot = region->guard_at(info->si_addr);
        if (slot == region->slots()) continue;
        write_report(region->state_of(slot));
        break;
    }
    // The fault then takes the course that it had without us.
    if (before_us.sa_flags & SA_SIGINFO) return before_us.sa_sigaction(signal, info, context);
    if (before_us.sa_handler != SIG_DFL && before_us.sa_handler != SIG_IGN)
        return before_us.sa_handler(signal);
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
}

}  // namespace

void add_region(const stack_region& r) {
    for (auto& place : regions) {
        const stack_region* none = nullptr;
        if (place.compare_exchange_strong(none, &r, std::memory_order_acq_rel)) return;
    }
    // More than that many workers: the others' overflows end the process without a report.
}

void remove_region(const stack_region& r) noexcept {
    for (auto& place : regions) {
        const stack_region* mine = &r;
        if (place.compare_exchange_strong(mine, nullptr, std::memory_order_acq_rel)) return;
    }
}

void watch_overflows() {
    static const bool once = [] {
        struct sigaction ours {};
        ours.sa_sigaction = on_fault;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigemptyset(&ours.sa_mask);
        return sigaction(SIGSEGV, &ours, &before_us) == 0;
    }();
    (void)once;
}

signal_stack::signal_stack() {
    stack_t old{};
    if (sigaltstack(nullptr, &old) != 0 || !(old.ss_flags & SS_DISABLE)) return;
    memory_ = mmap(nullptr, signal_stack_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
    if (memory_ == MAP_FAILED) throw std::bad_alloc();
    const stack_t mine{.ss_sp = memory_, .ss_flags = 0, .ss_size = signal_stack_bytes};
    sigaltstack(&mine, nullptr);
}

signal_stack::~signal_stack() {
    if (!memory_) return;
    const stack_t none{.ss_sp = nullptr, .ss_flags = SS_DISABLE, .ss_size = 0};
    sigaltstack(&none, nullptr);
    munmap(memory_, signal_stack_bytes);
}

void report_overflow(const fiber_state& f) noexcept {
    write_report(f);
    std::abort();
}

}  // namespace xos::sched::detail
