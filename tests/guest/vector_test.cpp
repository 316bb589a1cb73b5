// Several calls by one crossing, with and without the kernel module: the same answers.
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <xos/stats.hpp>

#include "kmod/xos_uapi.h"
#include "tests/guest/support.hpp"

namespace xos::test {

namespace {

xos_call make(std::uint64_t number, std::initializer_list<std::uint64_t> arguments = {}) {
    xos_call c{};
    c.number = number;
    unsigned i = 0;
    for (std::uint64_t a : arguments) c.arguments[i++] = a;
    c.result = 0xdead;
    return c;
}

/// All of them, however many crossings it takes.
void make_all(std::vector<xos_call>& calls) {
    for (std::size_t made = 0; made < calls.size();) {
        const long more = syscall(XOS_NR_VECTOR, &calls[made], calls.size() - made, 0ul);
        if (more < 0) return;
        made += static_cast<std::size_t>(more);
    }
}

std::vector<long> results(const std::vector<xos_call>& calls) {
    std::vector<long> r;
    for (const auto& c : calls) r.push_back(c.result);
    return r;
}

std::atomic<int> handled = 0;
void handler(int) {
    handled = handled + 1;
}

/// A thread inside reads from an empty pipe by a vector and gets a signal.
std::vector<long> read_and_signal(int flags, bool write_afterwards) {
    struct sigaction a {};
    a.sa_handler = handler;
    a.sa_flags = flags;
    sigaction(SIGUSR1, &a, nullptr);
    int ends[2];
    if (pipe(ends) != 0) return {};
    char byte = 0;
    std::vector<xos_call> calls{
        make(SYS_getppid),
        make(SYS_read, {static_cast<unsigned>(ends[0]), reinterpret_cast<std::uint64_t>(&byte), 1}),
        make(SYS_gettid)};
    std::atomic<int> thread = 0;
    std::thread reader([&] {
        scoped_entry inside;
        thread = static_cast<int>(syscall(SYS_gettid));
        make_all(calls);
    });
    eventually([&] { return thread != 0 && asleep(thread); });
    syscall(SYS_tgkill, getpid(), thread.load(), SIGUSR1);
    eventually([] { return handled == 1; });
    if (write_afterwards) (void)!write(ends[1], "x", 1);
    reader.join();
    calls[2].result -= thread;
    return results(calls);
}

}  // namespace

TEST_CASE("a vector makes its calls in order") {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const auto write_end = static_cast<unsigned>(ends[1]);
    char read_back[4] = {};
    std::vector<xos_call> calls{
        make(SYS_getppid),
        make(SYS_write, {write_end, reinterpret_cast<std::uint64_t>("ab"), 2}),
        make(SYS_write, {12345, 0, 1}),
        make(SYS_close, {12345}),
        make(SYS_fork),  // libxos's own to make: not in a vector
        make(SYS_write, {write_end, reinterpret_cast<std::uint64_t>("c"), 1}),
        make(100'000),
        make(SYS_read,
             {static_cast<unsigned>(ends[0]), reinterpret_cast<std::uint64_t>(read_back), 3})};
    in_cell([&] { return make_all(calls), 0; });
    CHECK(results(calls) ==
          std::vector<long>{getppid(), 2, -EBADF, -EBADF, -ENOSYS, 1, -ENOSYS, 3});
    CHECK(std::string(read_back) == "abc");
}

TEST_CASE("a vector that makes no sense is refused") {
    const auto answers = in_cell([] {
        std::vector<xos_call> calls(2, make(SYS_getppid));
        const auto answer = [](auto... a) { return syscall(XOS_NR_VECTOR, a...) < 0 ? errno : 0; };
        return std::vector<int>{answer(calls.data(), 0ul, 0ul),
                                answer(calls.data(), XOS_VECTOR_MAX + 1ul, 0ul),
                                answer(0x1000ul, 2ul, 0ul), answer(~0ul << 40, 2ul, 0ul),
                                answer(calls.data(), 2ul, 2ul)};
    });
    CHECK(answers == std::vector<int>{0, EINVAL, EFAULT, EFAULT, EINVAL});
}

TEST_CASE("a vector may end with the first call that fails") {
    std::vector<xos_call> calls{make(SYS_getppid), make(SYS_close, {12345}), make(SYS_getppid)};
    const auto made = in_cell([&] {
        long all = 0;
        // The module leaves the second call over.
        while (all < 2) {
            const long more =
                syscall(XOS_NR_VECTOR, &calls[static_cast<std::size_t>(all)],
                        calls.size() - static_cast<std::size_t>(all), XOS_VECTOR_STOP_AT_ERROR);
            if (more <= 0) break;
            all += more;
        }
        return all;
    });
    CHECK(made == 2);
    CHECK(results(calls) == std::vector<long>{getppid(), -EBADF, 0xdead});
}

TEST_CASE("a vector of calls leaves the guest once") {
    constexpr std::size_t many = XOS_VECTOR_MAX;
    std::vector<xos_call> calls(many, make(SYS_getppid));
    ensure_cell();
    const auto exits = [] { return stats().exits[static_cast<unsigned>(exit_kind::system_call)]; };
    const auto taken = in_cell([&] {
        make_all(calls);
        const auto before = exits();
        make_all(calls);
        return exits() - before;
    });
    if (wanted_transport() != transport::module) CHECK(taken == 1);
    CHECK(results(calls) == std::vector<long>(many, getppid()));
}

TEST_CASE("a vector whose results cannot be written") {
    auto* const page = static_cast<xos_call*>(
        mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    page[0] = make(SYS_getppid);
    mprotect(page, 4096, PROT_READ);
    CHECK(in_cell([&] { return syscall(XOS_NR_VECTOR, page, 1ul, 0ul) < 0 ? errno : 0; }) ==
          (wanted_transport() == transport::module ? 0 : EFAULT));
    CHECK(page[0].result == 0xdead);
    munmap(page, 4096);
}

TEST_CASE("the calls of a vector find no memory where there is none") {
    constexpr std::size_t page = 4096;
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    std::vector<xos_call> calls;
    in_cell([&] {
        auto* at = static_cast<char*>(
            mmap(nullptr, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        at[0] = at[page] = at[3 * page] = 'a';
        munmap(at + 2 * page, page);
        mprotect(at + 3 * page, page, PROT_READ);
        const auto write_end = static_cast<unsigned>(ends[1]),
                   read_end = static_cast<unsigned>(ends[0]);
        const auto address = reinterpret_cast<std::uint64_t>(at);
        for (unsigned i = 0; i < 4; i++)
            calls.push_back(make(SYS_write, {write_end, address + i * page, 1}));
        for (unsigned i = 0; i < 4; i++)
            calls.push_back(make(SYS_read, {read_end, address + i * page, 1}));
        calls.push_back(make(SYS_read, {read_end, address, 1}));
        return make_all(calls), 0;
    });
    // A read that fails takes nothing from a pipe.
    CHECK(results(calls) == std::vector<long>{1, 1, -EFAULT, 1, 1, 1, -EFAULT, -EFAULT, 1});
}

TEST_CASE("a call of a vector that a handler interrupts") {
    ensure_cell();
    CHECK(read_and_signal(0, false) == std::vector<long>{getppid(), -EINTR, 0});
    CHECK(handled == 1);
}

TEST_CASE("a call of a vector goes on after a handler with SA_RESTART") {
    ensure_cell();
    CHECK(read_and_signal(SA_RESTART, true) == std::vector<long>{getppid(), 1, 0});
    CHECK(handled == 1);
}

}  // namespace xos::test
