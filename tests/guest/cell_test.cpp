// Entering and leaving, and threads, exceptions and locks that do.
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <future>
#include <memory>
#include <mutex>
#include <numeric>
#include <set>
#include <stdexcept>
#include <xos/stats.hpp>
#include <xos/trap.hpp>

#include "tests/guest/machine_state.hpp"
#include "tests/guest/support.hpp"

extern "C" {
[[gnu::weak]] extern const unsigned __rseq_size;
}

using namespace xos;
using namespace xos::test;

namespace {

/// The registers that a function must keep, set to a pattern around a call.
extern "C" void xos_test_callee_saved(void (*fn)(), std::uint64_t* out);
asm(R"(
        .text
        .globl xos_test_callee_saved
xos_test_callee_saved:
        pushq %rbx
        pushq %rbp
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        pushq %rsi
        movabsq $0x1122334455667788, %rbx
        leaq 1(%rbx), %rbp
        leaq 2(%rbx), %r12
        leaq 3(%rbx), %r13
        leaq 4(%rbx), %r14
        leaq 5(%rbx), %r15
        call *%rdi
        popq %rsi
        movq %rbx, (%rsi)
        movq %rbp, 8(%rsi)
        movq %r12, 16(%rsi)
        movq %r13, 24(%rsi)
        movq %r14, 32(%rsi)
        movq %r15, 40(%rsi)
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %rbp
        popq %rbx
        ret
)");

std::vector<std::uint64_t> callee_saved_after(void (*fn)()) {
    std::vector<std::uint64_t> all(6);
    xos_test_callee_saved(fn, all.data());
    return all;
}

struct control_words {
    unsigned mxcsr = _mm_getcsr();
    std::uint16_t x87;
    control_words() { asm volatile("fnstcw %0" : "=m"(x87)); }
};

std::atomic<unsigned> destroyed{0};
struct counts_destruction {
    ~counts_destruction() { destroyed++; }
    unsigned value = 0;
};
thread_local counts_destruction per_thread;

[[gnu::noinline]] void throw_through(int depth) {
    struct unwound {
        ~unwound() { destroyed++; }
    } guard;
    if (depth == 0) throw std::runtime_error("from below");
    throw_through(depth - 1);
}

}  // namespace

TEST_CASE("enter and leave continue in the same function") {
    ensure_cell();
    volatile int local = 41;
    const pid_t thread = gettid();
    CHECK_FALSE(inside());
    enter();
    const bool was_inside = inside();
    local = local + 1;
    const pid_t thread_inside = gettid();
    leave();
    CHECK(was_inside);
    CHECK_FALSE(inside());
    CHECK(local == 42);
    CHECK(thread_inside == thread);
}

TEST_CASE("enter starts the cell if need be") {
    CHECK_FALSE(started());
    CHECK(current_mode() == mode::automatic);
    enter();
    const bool was_inside = inside();
    leave();
    CHECK(was_inside);
    CHECK(started());
    CHECK(current_mode() != mode::automatic);
    CHECK(mode_reason().size() > 10);
}

TEST_CASE("a scoped entry leaves at the end of its scope also by an exception") {
    ensure_cell();
    try {
        scoped_entry guard;
        throw 1;
    } catch (int) {
    }
    CHECK_FALSE(inside());
    {
        scoped_entry guard;
        leave();
    }
    CHECK_FALSE(inside());
}

TEST_CASE("enter and leave keep the callee-saved registers") {
    ensure_cell();
    const auto expected = callee_saved_after([] {});
    const auto entering = callee_saved_after([] { enter(); });
    const auto inside_call = callee_saved_after([] { getppid(); });
    const auto leaving = callee_saved_after([] { leave(); });
    CHECK(entering == expected);
    CHECK(inside_call == expected);
    CHECK(leaving == expected);
}

TEST_CASE("enter and leave keep errno and the floating-point modes") {
    ensure_cell();
    _mm_setcsr(0x1f80 | 0x6000);  // truncate
    const std::uint16_t single_precision_down = 0x047f;
    asm volatile("fldcw %0" : : "m"(single_precision_down));
    errno = 1234;
    enter();
    const int error_inside = errno;
    const control_words words_inside;
    errno = 4321;
    _mm_setcsr(0x1f80 | 0x2000);
    leave();
    const int error_outside = errno;
    const control_words words_outside;
    _mm_setcsr(0x1f80);
    asm volatile("fninit");
    CHECK(error_inside == 1234);
    CHECK(words_inside.mxcsr == (0x1f80u | 0x6000u));
    CHECK(words_inside.x87 == 0x047f);
    CHECK(error_outside == 4321);
    CHECK(words_outside.mxcsr == (0x1f80u | 0x2000u));
    CHECK(words_outside.x87 == 0x047f);
}

TEST_CASE("threads enter and leave at the same time") {
    ensure_cell();
    std::atomic<unsigned> wrong{0}, rounds{0};
    on_threads(20, [&](unsigned index) {
        for (unsigned i = 0; i < 25; i++) {
            volatile unsigned mine = index * 1000 + i;
            scoped_entry guard;
            per_thread.value = mine;
            if (!inside() || getpid() <= 0 || per_thread.value != mine) wrong++;
            rounds++;
        }
        if (inside()) wrong++;
    });
    CHECK(wrong == 0);
    CHECK(rounds == 20 * 25);
}

TEST_CASE("a thread created inside starts inside and one created outside does not") {
    ensure_cell();
    bool born_inside = false, born_outside = true;
    {
        scoped_entry guard;
        std::thread([&] { born_inside = inside(); }).join();
    }
    std::thread([&] { born_outside = inside(); }).join();
    CHECK(born_inside);
    CHECK_FALSE(born_outside);
}

TEST_CASE("a thread born inside may leave and end outside and the other way round") {
    const auto counts = in_cell([] {
        std::vector<int> seen;
        std::thread([&] {
            leave();
            seen.push_back(inside());
        }).join();
        std::thread([&] {
            leave();
            enter();
            seen.push_back(inside());
        }).join();
        return seen;
    });
    bool second = false;
    std::thread([&] {
        enter();
        second = inside();
    }).join();
    CHECK(counts == std::vector<int>{0, 1});
    CHECK(second);
}

TEST_CASE("thread-local objects live and die as they do natively") {
    same([] {
        destroyed = 0;
        std::vector<unsigned> seen(8);
        on_threads(8, [&](unsigned i) {
            per_thread.value += i + 1;
            std::this_thread::yield();
            seen[i] = per_thread.value;
        });
        seen.push_back(destroyed);
        return seen;
    });
    CHECK(destroyed == 8);
}

TEST_CASE("exceptions unwind frames inside") {
    same([] {
        destroyed = 0;
        std::string text;
        try {
            throw_through(20);
        } catch (const std::exception& e) {
            text = e.what();
        }
        return text + " " + std::to_string(destroyed);
    });
}

TEST_CASE("an exception thrown inside is caught outside") {
    ensure_cell();
    std::string text;
    try {
        scoped_entry guard;
        throw_through(3);
    } catch (const std::runtime_error& e) {
        text = e.what();
    }
    CHECK(text == "from below");
}

TEST_CASE("mutexes and condition variables and futures work") {
    const auto sums = same([] {
        std::mutex lock;
        std::condition_variable changed;
        unsigned turn = 0, sum = 0;
        on_threads(6, [&](unsigned i) {
            for (unsigned round = 0; round < 20; round++) {
                std::unique_lock held(lock);
                changed.wait(held, [&] { return turn % 6 == i; });
                turn++;
                sum += round;
                changed.notify_all();
            }
        });
        auto first = std::async(std::launch::async, [] { return 20u; });
        auto second = std::async(std::launch::async, [&] { return first.get() + 22u; });
        std::unique_lock held(lock);
        const bool timed_out =
            changed.wait_for(held, std::chrono::milliseconds(1)) == std::cv_status::timeout;
        return std::vector<unsigned>{turn, sum, second.get(), timed_out};
    });
    CHECK(sums == std::vector<unsigned>{120, 1140, 42, 1});
}

TEST_CASE("one mutex is shared by threads inside and outside") {
    ensure_cell();
    std::mutex lock;
    unsigned long sum = 0;
    on_threads(4, [&](unsigned i) {
        if (i % 2) enter();
        for (unsigned n = 0; n < 2000; n++) {
            std::lock_guard held(lock);
            sum = sum + 1;
        }
        if (i % 2) leave();
    });
    CHECK(sum == 8000);
}

TEST_CASE("a host call runs outside and returns inside") {
    ensure_cell();
    bool inside_call = true, inside_after = false;
    int value = 0;
    {
        scoped_entry guard;
        host_call([&] {
            inside_call = inside();
            value = 7;
        });
        inside_after = inside();
    }
    CHECK_FALSE(inside_call);
    CHECK(inside_after);
    CHECK(value == 7);
    host_call([&] { value = 8; });
    CHECK(value == 8);
}

TEST_CASE("a host call hands back what its callable returns and throws") {
    const auto probe = [] {
        lines seen;
        seen.push_back(host_call([] { return std::string(100, 'x'); }));
        // What can only be moved, in both directions.
        auto handed = std::make_unique<int>(41);
        const auto back = host_call([p = std::move(handed)]() mutable {
            ++*p;
            return std::move(p);
        });
        seen.push_back(std::to_string(*back));
        int local = 1;
        const auto& const_callable = [&local] { return local + 1; };
        seen.push_back(std::to_string(host_call(const_callable)));
        seen.push_back(std::to_string(host_call(getpid) == getpid()));
        try {
            host_call([] { throw_through(3); });
        } catch (const std::runtime_error& e) {
            seen.push_back(e.what());
        }
        return seen;
    };
    CHECK(same(probe) == lines{std::string(100, 'x'), "42", "2", "1", "from below"});
}

TEST_CASE("a fault handler makes a host call") {
    ensure_cell();
    static bool inside_call = true;
    const auto guard = on_exception(exception::invalid_opcode, [](trap_frame& f, void*) {
        inside_call = host_call([] { return inside(); });
        f.rip += 2;
        return verdict::resume;
    });
    CHECK(in_cell([] {
        asm volatile("ud2");
        return inside();
    }));
    CHECK_FALSE(inside_call);
}

TEST_CASE("vCPUs are pooled") {
    ensure_cell();
    for (unsigned i = 0; i < 60; i++) std::thread([] { scoped_entry guard; }).join();
    {
        scoped_entry guard;
        for (unsigned i = 0; i < 40; i++) std::thread([] {}).join();
    }
    const statistics s = stats();
    CHECK(s.vcpus <= 8);
    CHECK(s.entries == 101);
}

TEST_CASE("statistics count what happened") {
    const auto differences = in_cell([] {
        const statistics before = stats();
        const std::uint64_t exits = thread_exits();
        for (int i = 0; i < 10; i++) syscall(SYS_getppid);
        const std::uint64_t made = thread_exits() - exits;
        const statistics after = stats();
        const auto path = static_cast<unsigned>(
            current_transport() == transport::module ? syscall_path::module : syscall_path::exit);
        return std::vector<std::uint64_t>{
            after.syscalls[path][SYS_getppid] - before.syscalls[path][SYS_getppid], made};
    });
    const std::uint64_t exits = current_transport() == transport::module ? 0 : 10;
    CHECK(differences == std::vector<std::uint64_t>{10, exits});
    CHECK(to_string(stats()).find("getppid") != std::string::npos);
}

TEST_CASE("restartable sequences are taken back and refused inside") {
    const auto probe = [] {
        alignas(32) char area[32] = {};
        lines seen{outcome_of("rseq", [&] { return syscall(SYS_rseq, area, 32, 0, 0x53053053); })};
        // What the C library would use if it were registered.
        const int cpu = sched_getcpu();
        seen.push_back(cpu >= 0 && cpu < sysconf(_SC_NPROCESSORS_CONF) ? "a processor" : "none");
        seen.push_back(&__rseq_size && __rseq_size ? "there are some" : "there are none");
        return seen;
    };
    const lines inside = in_cell(probe);
    CHECK(inside == lines{"rseq=-1 ENOSYS", "a processor", "there are none"});
    lines on_thread;
    in_cell([&] {
        std::thread([&] { on_thread = probe(); }).join();
        return 0;
    });
    CHECK(on_thread == inside);
}
