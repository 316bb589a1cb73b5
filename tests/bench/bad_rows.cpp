// Rows that go wrong in every way, among others that do not; tests/tools/bench_rows_test.py runs them. None needs
// /dev/kvm.
#include <signal.h>
#include <unistd.h>

#include <stdexcept>

#include "bench/harness.hpp"

namespace xos::bench {

namespace {

void count(std::uint64_t operations) {
    for (; operations; operations--) asm volatile("" : : : "memory");
}
void count_more(std::uint64_t operations) {
    count(4 * operations);
}

constexpr side here(void (*run)(std::uint64_t), void (*setup)() = nullptr) {
    return {.where = place::own_process, .setup = setup, .run = run};
}

benchmark row(const char* suite, const char* name, void (*setup)() = nullptr) {
    return {.suite = suite,
            .name = name,
            .note = "counts; Linux's way four times as far",
            .linux_way = here(count_more),
            .xos_way = here(count, setup)};
}

benchmark asked_first(const char* name, bool (*available)()) {
    benchmark b = row("bad", name);
    b.others = {{"another way", here(count), available}};
    return b;
}

const registration rows[] = {
    registration(row("good", "first")),
    registration(asked_first("crash",
                             [] {
                                 raise(SIGSEGV);
                                 return true;
                             })),
    registration(asked_first("end", []() -> bool { _exit(3); })),
    registration(asked_first("hang",
                             [] {
                                 for (;;) pause();
                                 return true;
                             })),
    registration(
        row("bad", "throw", [] { throw std::runtime_error("a <b>reason</b>\nand more"); })),
    registration(row("bad", "crash-of-side", [] { raise(SIGSEGV); })),
    registration(asked_first("no-other", [] { return false; })),
    registration(row("good", "last")),
};

}  // namespace

}  // namespace xos::bench
