// A thread forks while another one holds a lock of libxos's: the child must find it free, and what
// it guards whole.
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <xos/memory.hpp>
#include <xos/trap.hpp>
#include <xos/vm.hpp>

#include "libxos/base/clock.hpp"
#include "libxos/memory/fork_locks.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

enum class stage { begin, held, forking, over };
std::atomic<stage> now;
std::atomic<long> holder;
std::atomic<int> locks_before;

/// Keeps the lock until somebody else has had time to fork. In host mode, where C's library has no
/// business.
void linger(base::futex_lock&) {
    if (base::raw_syscall(SYS_gettid) != holder || locks_before-- != 0) return;
    now = stage::held;
    while (now != stage::forking) base::raw_syscall(SYS_sched_yield);
    constexpr std::uint64_t a_while = 20'000'000;
    const std::uint64_t end = base::monotonic_nanoseconds() + a_while;
    while (base::monotonic_nanoseconds() < end) base::raw_syscall(SYS_sched_yield);
    now = stage::over;
}

verdict give_page(trap_frame& frame, void*) {
    const gva page = page_fault_of(frame).address.align_down(page_size);
    const auto mapped = vm::map(page, vm::allocate_frame(), vm::access::read_write);
    return mapped == vm::map_result::ok ? verdict::resume : verdict::pass;
}

void register_handlers(gva view) {
    const auto range = on_fault(view, page_size, give_page);
    const auto vector = on_exception(exception::breakpoint, give_page);
}

void make_arena() {
    const memory::arena a({.bytes = std::size_t{4} << 20});
}

/// What the child does with everything that was locked.
int use_all(gva view, gva other) {
    memory::the_locks.when_taken = nullptr;
    auto* word = reinterpret_cast<volatile int*>(view.value);
    *word = 5;
    // Not where the other thread may have registered its own.
    register_handlers(other + page_size);
    (void)vm::reserve(std::size_t{1} << 20);
    make_arena();
    std::thread([&] { *word = *word + 1; }).join();
    return *word;
}

std::string fork_while(gva view, gva other, int before, const std::function<void()>& locks) {
    now = stage::begin;
    locks_before = before;
    std::thread other_thread([&] {
        holder = gettid();
        locks();
        holder = 0;
    });
    std::string result = "nothing was locked";
    if (eventually([] { return now == stage::held; })) {
        now = stage::forking;
        const int pid = fork();
        if (pid == 0) _exit(use_all(view, other));
        result = status_of(pid);
    }
    other_thread.join();
    return result;
}

}  // namespace

TEST_CASE("a fork waits for whoever changes what libxos shares") {
    const auto seen = in_cell([] {
        const gva view = vm::reserve(std::size_t{1} << 20), other = vm::reserve(page_size);
        const auto handler = on_fault(view, page_size, give_page);
        memory::the_locks.when_taken = linger;
        lines all;
        all.push_back(fork_while(view, other, 0, [&] { register_handlers(other); }));
        all.push_back(fork_while(view, other, 1, [&] { register_handlers(other); }));
        for (int before : {0, 1})
            all.push_back(fork_while(view, other, before, [] { (void)vm::reserve(1 << 20); }));
        for (int before : {0, 1}) all.push_back(fork_while(view, other, before, make_arena));
        all.push_back(fork_while(view, other, 0, [] { std::thread([] {}).join(); }));
        memory::the_locks.when_taken = nullptr;
        return all;
    });
    CHECK(seen == lines(7, "exit 6"));
}

TEST_CASE("handlers come and go while another thread forks") {
    CHECK(in_cell([] {
              const gva view = vm::reserve(std::size_t{1} << 20), other = vm::reserve(page_size);
              const auto handler = on_fault(view, page_size, give_page);
              std::atomic<bool> stop{false};
              std::thread busy([&] {
                  while (!stop) register_handlers(other);
              });
              std::string all;
              for (int i = 0; i < 6; i++) {
                  const int pid = fork();
                  if (pid == 0) {
                      *reinterpret_cast<volatile int*>(view.value) = i;
                      std::thread([] {}).join();
                      _exit(*reinterpret_cast<volatile int*>(view.value));
                  }
                  all += status_of(pid) == "exit " + std::to_string(i) ? "+" : "-";
              }
              stop = true;
              busy.join();
              return all;
          }) == "++++++");
}

TEST_CASE("a signal's handler takes page faults and forks while its thread registers a handler") {
    static gva view, other;
    static std::atomic<int> served;
    signal(SIGALRM, [](int) {
        *reinterpret_cast<volatile int*>(view.value + (served % 200) * page_size) = 1;
        if (served++ % 16 == 0) {
            const int pid = fork();
            if (pid == 0) _exit(3);
            if (status_of(pid) != "exit 3") served = -1000000;
        }
    });
    CHECK(in_cell([] {
        view = vm::reserve(std::size_t{1} << 20);
        other = vm::reserve(page_size);
        const auto handler = on_fault(view, std::size_t{1} << 20, give_page);
        const itimerval often{{0, 2000}, {0, 2000}}, never{};
        setitimer(ITIMER_REAL, &often, nullptr);
        const bool enough = eventually([] {
            register_handlers(other);
            return served > 40 || served < 0;
        });
        setitimer(ITIMER_REAL, &never, nullptr);
        return enough && served > 0;
    }));
}
