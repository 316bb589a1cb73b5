// C++ exceptions that leave a fault handler go on in the code that faulted.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <stdexcept>
#include <xos/trap.hpp>
#include <xos/vm.hpp>

#include "tests/guest/handlers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

int destroyed;
struct counted {
    ~counted() { destroyed++; }
};

struct fault_at : std::runtime_error {
    explicit fault_at(gva where) : std::runtime_error("fault"), where(where) {}
    gva where;
};

verdict throw_fault(trap_frame& f, void*) {
    const counted one;
    throw fault_at(page_fault_of(f).address);
}

verdict throw_vector(trap_frame& f, void*) {
    throw static_cast<int>(f.vector);
}

[[gnu::noinline]] int load(const volatile int* p) {
    return *p + 1;
}
[[gnu::noinline]] int load_below(const volatile int* p, long a, long b, long c) {
    const counted one;
    const int value = load(p);
    return value + static_cast<int>(a * b * c);
}
[[gnu::noinline]] void execute_ud2() {
    asm volatile("ud2");
}
[[gnu::noinline]] void divide_by_zero() {
    asm volatile("xorl %%ecx, %%ecx\n cltd\n idivl %%ecx" ::: "eax", "ecx", "edx");
}

/// What is caught, with values that the compiler keeps in registers over the call.
std::string caught_from(const volatile int* p) {
    const long a = getpid(), b = a + 1, c = a + 2;
    const double x = static_cast<double>(a) / 3;
    try {
        return "loaded " + std::to_string(load_below(p, a, b, c));
    } catch (const fault_at& e) {
        const bool kept = b == a + 1 && c == a + 2 && x == static_cast<double>(getpid()) / 3;
        return std::string(e.what()) +
               (e.where.value == reinterpret_cast<std::uint64_t>(p) ? "" : " elsewhere") +
               (kept ? "" : ", registers lost");
    }
}

gva view;
void reserve_view() {
    ensure_cell();
    view = vm::reserve(1 << 20);
}

}  // namespace

TEST_CASE("a handler's exception is caught by the caller of the code that faulted") {
    auto* refused = static_cast<const volatile int*>(
        mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    reserve_view();
    const auto of_view = on_fault(view, 1 << 20, throw_fault);
    const auto of_linux = on_exception(exception::page_fault, throw_fault);
    for (const volatile int* p : {reinterpret_cast<const volatile int*>(view.value), refused,
                                  reinterpret_cast<const volatile int*>(8)}) {
        destroyed = 0;
        const lines all = in_cell([p] {
            lines all;
            for (int i = 0; i < 100; i++) all.push_back(caught_from(p));
            return all;
        });
        CHECK(all == lines(100, "fault"));
        CHECK(destroyed == 200);
    }
}

TEST_CASE("other exceptions of the processor can be thrown as well") {
    ensure_cell();
    const auto opcode = on_exception(exception::invalid_opcode, throw_vector);
    const auto division = on_exception(exception::divide, throw_vector);
    const auto vectors = in_cell([] {
        std::vector<int> seen;
        for (int i = 0; i < 50; i++) {
            try {
                execute_ud2();
            } catch (int vector) {
                seen.push_back(vector);
            }
            try {
                divide_by_zero();
            } catch (int vector) {
                seen.push_back(vector);
            }
        }
        return seen;
    });
    REQUIRE(vectors.size() == 100);
    CHECK(vectors[0] == 6);
    CHECK(vectors[99] == 0);
}

TEST_CASE("a handler may catch what a handler throws while it faults itself") {
    ensure_cell();
    static int depth;
    const auto nested = on_exception(exception::page_fault, [](trap_frame&, void*) -> verdict {
        if (++depth == 3) throw depth;
        try {
            load(reinterpret_cast<const volatile int*>(16));
        } catch (int d) {
            throw d + 10;
        }
        return verdict::pass;
    });
    const int caught = in_cell([] {
        try {
            return load(reinterpret_cast<const volatile int*>(8));
        } catch (int d) {
            return d;
        }
    });
    CHECK(caught == 23);
}

TEST_CASE("signals come between handlers that throw") {
    reserve_view();
    static volatile int alarms;
    handle(SIGALRM, [](int) { alarms = alarms + 1; });
    const auto handler = on_fault(view, 1 << 20, throw_fault);
    const long wrong = in_cell([] {
        timer(3000, true);
        long wrong = 0;
        while (alarms < 100)
            wrong += caught_from(reinterpret_cast<const volatile int*>(view.value)) != "fault";
        timer(0, false);
        return wrong;
    });
    CHECK(wrong == 0);
}

TEST_CASE("a thread may end in a fault handler") {
    ensure_cell();
    destroyed = 0;
    const auto handler = on_exception(exception::page_fault, [](trap_frame&, void*) -> verdict {
        pthread_exit(reinterpret_cast<void*>(7));
    });
    const auto result = in_cell([] {
        pthread_t thread;
        void* result = nullptr;
        pthread_create(
            &thread, nullptr,
            [](void*) -> void* {
                load_below(reinterpret_cast<const volatile int*>(8), 1, 2, 3);
                return nullptr;
            },
            nullptr);
        pthread_join(thread, &result);
        return reinterpret_cast<std::uintptr_t>(result);
    });
    CHECK(result == 7);
    CHECK(destroyed == 1);
}
