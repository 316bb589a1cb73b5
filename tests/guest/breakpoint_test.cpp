// Breakpoints and single steps: the program's own, and those that tracers set.
#include <dlfcn.h>
#include <elf.h>
#include <link.h>
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "tests/guest/handlers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

volatile int alarms, traps;

void count_signals() {
    handle(SIGALRM, [](int) { alarms = alarms + 1; });
    handle(SIGTRAP, [](int) { traps = traps + 1; });
}

}  // namespace

TEST_CASE("no breakpoint is lost to a signal that comes first") {
    count_signals();
    const auto lost = same([] {
        alarms = 0;
        traps = 0;
        int executed = 0;
        timer(3000, true);
        while (alarms < 100) {
            asm volatile("int3");
            executed++;
        }
        timer(0, false);
        return executed - traps;
    });
    CHECK(lost == 0);
}

TEST_CASE("no single step is lost to a signal that comes first") {
    count_signals();
    const auto steps = same([] {
        alarms = 0;
        int least = 1 << 30, most = 0;
        timer(3000, true);
        while (alarms < 30) {
            traps = 0;
            asm volatile(
                "pushfq\n orq $0x100, (%%rsp)\n popfq\n"
                "movl $50, %%ecx\n 1: decl %%ecx\n jnz 1b\n"
                "pushfq\n andq $~0x100, (%%rsp)\n popfq" ::
                    : "rcx", "cc", "memory");
            least = std::min(least, int{traps});
            most = std::max(most, int{traps});
        }
        timer(0, false);
        return std::vector<int>{least, most};
    });
    CHECK(steps[0] == steps[1]);
}

TEST_CASE("a blocked SIGTRAP stays blocked while Linux is asked about an access") {
    static char* page;
    page = static_cast<char*>(mmap(nullptr, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    count_signals();
    handle(SIGSEGV, [](int, siginfo_t*, void*) { mprotect(page, 4096, PROT_READ | PROT_WRITE); });
    const auto text = same([] {
        mprotect(page, 4096, PROT_NONE);
        traps = 0;
        const sigset_t set = set_of({SIGTRAP});
        sigprocmask(SIG_BLOCK, &set, nullptr);
        kill(getpid(), SIGTRAP);
        *static_cast<volatile char*>(page) = 1;
        std::string text = show("blocked", traps);
        sigprocmask(SIG_UNBLOCK, &set, nullptr);
        return text + " " + show("open", traps);
    });
    CHECK(text == "blocked=0 open=1");
}

// What a probe can be set on: an instruction that Linux executes elsewhere, and those that it
// emulates. Each computes 3 x + 1.
extern "C" {
long probed_lea(long);
long probed_nop(long);
long probed_nop5(long);
long probed_push(long);
long probed_call(long);
long probed_jump(long);
}
asm(R"(
    .text
    .balign 16
probed_lea:
    leaq 1(%rdi,%rdi,2), %rax
    ret
    .balign 16
probed_nop:
    nop
    leaq 1(%rdi,%rdi,2), %rax
    ret
    .balign 16
probed_nop5:
    .byte 0x0f, 0x1f, 0x44, 0, 0
    leaq 1(%rdi,%rdi,2), %rax
    ret
    .balign 16
probed_push:
    pushq %rbp
    leaq 1(%rdi,%rdi,2), %rax
    popq %rbp
    ret
    .balign 16
probed_call:
    call 1f
    ret
1:  leaq 1(%rdi,%rdi,2), %rax
    ret
    .balign 16
probed_jump:
    jmp 1f
    ud2
1:  leaq 1(%rdi,%rdi,2), %rax
    ret
)");

namespace {

using probed = long (*)(long);

std::uint64_t offset_in_file(probed function) {
    struct search {
        std::uint64_t address, offset;
    } wanted{reinterpret_cast<std::uint64_t>(function), 0};
    dl_iterate_phdr(
        [](dl_phdr_info* info, std::size_t, void* argument) {
            auto& s = *static_cast<search*>(argument);
            for (int i = 0; i < info->dlpi_phnum; i++) {
                const auto& p = info->dlpi_phdr[i];
                const std::uint64_t begin = info->dlpi_addr + p.p_vaddr;
                if (p.p_type != PT_LOAD || s.address - begin >= p.p_filesz) continue;
                s.offset = p.p_offset + (s.address - begin);
                return 1;
            }
            return 0;
        },
        &wanted);
    return wanted.offset;
}

/// A probe on calls, or returns, of a function by this thread; its descriptor, or -1.
int set_probe(probed function, bool at_return) {
    FILE* file = fopen("/sys/bus/event_source/devices/uprobe/type", "r");
    unsigned type = 0;
    if (!file || fscanf(file, "%u", &type) != 1) type = 0;
    if (file) fclose(file);
    if (!type) return -1;
    perf_event_attr a{};
    a.size = sizeof a;
    a.type = type;
    a.config = at_return;
    a.config1 = reinterpret_cast<std::uint64_t>("/proc/self/exe");
    a.config2 = offset_in_file(function);
    return static_cast<int>(syscall(SYS_perf_event_open, &a, 0, -1, -1, 0));
}

std::string count_of(int probe) {
    std::uint64_t count = 0;
    if (read(probe, &count, sizeof count) != sizeof count) return "unknown";
    return std::to_string(count);
}

constexpr probed all_probed[] = {probed_lea,  probed_nop,  probed_nop5,
                                 probed_push, probed_call, probed_jump};

/// Results and hits of `n` calls of each function.
lines probe_all(int n, bool at_return) {
    lines seen;
    for (probed function : all_probed) {
        const int probe = set_probe(function, at_return);
        if (probe < 0) {
            seen.push_back(std::string("no probe: ") + strerrorname_np(errno));
            continue;
        }
        long sum = 0;
        for (int i = 0; i < n; i++) sum += function(i);
        seen.push_back(show("sum", sum) + " hits " + count_of(probe));
        close(probe);
        for (int i = 0; i < n; i++) sum += function(i);
        seen.push_back(show("sum", sum));
    }
    return seen;
}

}  // namespace

TEST_CASE("a probe on a function counts its calls") {
    same([] { return probe_all(50, false); });
}

TEST_CASE("a probe on a function's return counts its returns") {
    same([] { return probe_all(50, true); });
}

TEST_CASE("a probe does not mind signals") {
    count_signals();
    for (bool at_return : {false, true}) {
        same([at_return] {
            alarms = 0;
            traps = 0;
            lines seen;
            for (probed function : all_probed) {
                const int probe = set_probe(function, at_return);
                timer(3000, true);
                long wrong = 0, called = 0;
                for (const int end = alarms + 20; alarms < end; called++)
                    wrong += function(called) != 3 * called + 1;
                timer(0, false);
                const std::string count = probe < 0 ? "no" : count_of(probe);
                seen.push_back(show("wrong", wrong) + " " + show("traps", traps) + " " +
                               (probe < 0 || count == std::to_string(called) ? "all" : count));
                close(probe);
            }
            return seen;
        });
    }
}

TEST_CASE("threads run into a probe at the same time") {
    same([] {
        const int probe = set_probe(probed_lea, true);
        std::atomic<long> wrong = 0;
        on_threads(4, [&](unsigned) {
            for (long i = 0; i < 200; i++) wrong += probed_lea(i) != 3 * i + 1;
        });
        close(probe);
        return wrong.load();
    });
}

TEST_CASE("a hardware breakpoint on a thread in the cell is refused") {
    static volatile long watched;
    ensure_cell();
    const auto open_breakpoint = [](int pid) {
        perf_event_attr a{};
        a.size = sizeof a;
        a.type = PERF_TYPE_BREAKPOINT;
        a.bp_type = HW_BREAKPOINT_W;
        a.bp_addr = reinterpret_cast<std::uint64_t>(&watched);
        a.bp_len = 8;
        a.exclude_kernel = a.exclude_hv = 1;
        const long fd = syscall(SYS_perf_event_open, &a, pid, -1, -1, 0);
        const int error = errno;
        if (fd >= 0) close(static_cast<int>(fd));
        return outcome_of("open", fd < 0 ? -1 : 0, error);
    };
    const int self = getpid();
    for (int pid : {0, self})
        CHECK(in_cell([&] { return open_breakpoint(pid); }) == "open=-1 ENOSPC");
    // Nobody's business but Linux's.
    same([&] { return open_breakpoint(1 << 22); });
}
