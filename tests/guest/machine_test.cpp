// What ordinary code finds inside: vector registers, clocks, the processor's number, its memory.
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cerrno>
#include <cstring>
#include <numeric>
#include <set>

#include "tests/guest/machine_state.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

std::uint64_t now(clockid_t clock) {
    timespec t;
    clock_gettime(clock, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
           static_cast<std::uint64_t>(t.tv_nsec);
}

std::uint64_t host_clock(clockid_t clock) {
    return host_call([clock] {
        timespec t;
        syscall(SYS_clock_gettime, clock, &t);
        return static_cast<std::uint64_t>(t.tv_sec) * 1'000'000'000 +
               static_cast<std::uint64_t>(t.tv_nsec);
    });
}

[[gnu::noinline]] unsigned long deep(unsigned n) {
    volatile char room[4000];
    room[0] = static_cast<char>(n);
    if (n == 0) return 0;
    return deep(n - 1) + 1 + static_cast<unsigned long>(room[0] - static_cast<char>(n));
}

}  // namespace

TEST_CASE("AVX registers survive forwarded calls and first touches of memory") {
    if (!__builtin_cpu_supports("avx2")) return;
    const auto differences = same([] {
        lines all;
        machine_state in = distinct_state();
        in.gpr[0] = SYS_getppid;
        constexpr unsigned result_rcx_r11 = 1 | 1 << 2 | 1 << 10;
        all.push_back(difference(in, registers_after(event::syscall, in), result_rcx_r11));
        auto* fresh = static_cast<char*>(mmap(nullptr, std::size_t{1} << 30, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        for (std::size_t at = 0; at < std::size_t{1} << 30; at += std::size_t{200} << 20) {
            in.gpr[4] = reinterpret_cast<std::uint64_t>(fresh + at);
            all.push_back(difference(in, registers_after(event::store_to_rsi, in)));
        }
        munmap(fresh, std::size_t{1} << 30);
        return all;
    });
    CHECK(differences == lines(7));
}

TEST_CASE("AVX-512 registers survive forwarded calls") {
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw")) return;
    same([] {
        alignas(64) static std::uint8_t in[32][64], out[32][64];
        for (unsigned i = 0; i < sizeof in; i++)
            in[i / 64][i % 64] = static_cast<std::uint8_t>(i * 7 + i / 64);
        std::uint64_t mask = 0;
        long result = SYS_getppid;
        asm volatile(R"(
            .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
            vmovdqu64 64*\n(%2), %%zmm\n
            .endr
            movabsq $0x123456789abcdef0, %%rdx
            kmovq %%rdx, %%k5
            syscall
            kmovq %%k5, %1
            .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
            vmovdqu64 %%zmm\n, 64*\n(%3)
            .endr
            vzeroupper)"
                     : "+a"(result), "=&r"(mask)
                     : "r"(&in), "r"(&out)
                     : "rcx", "rdx", "r11", "memory", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4",
                       "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                       "xmm14", "xmm15");
        return std::pair(std::memcmp(in, out, sizeof in), mask);
    });
}

TEST_CASE("the vDSO's clocks agree with Linux and never step back") {
    const unsigned wrong = in_cell([] {
        unsigned wrong = 0;
        for (clockid_t clock : {CLOCK_MONOTONIC, CLOCK_REALTIME}) {
            std::uint64_t last = 0;
            for (unsigned i = 0; i < 50; i++) {
                const std::uint64_t before = host_clock(clock), here = now(clock),
                                    after = host_clock(clock);
                if (here < before || here > after || here < last) wrong++;
                last = here;
            }
        }
        return wrong;
    });
    CHECK(wrong == 0);
}

TEST_CASE("the time stamp counter is the host's") {
    const bool between = in_cell([] {
        const auto read = [] { return __rdtsc(); };
        const std::uint64_t before = host_call(read), here = read(), after = host_call(read);
        return before <= here && here <= after;
    });
    CHECK(between);
}

/// Calls f(cpu) on each of the first four processors that the thread may run on.
template <class F>
static void on_each_processor(F f) {
    cpu_set_t all;
    sched_getaffinity(0, sizeof all, &all);
    for (int cpu = 0; cpu < 4; cpu++) {
        if (!CPU_ISSET(cpu, &all)) continue;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(cpu, &one);
        sched_setaffinity(0, sizeof one, &one);
        f(cpu);
    }
    sched_setaffinity(0, sizeof all, &all);
}

TEST_CASE("getcpu names the processor that the thread runs on") {
    same([] {
        std::vector<int> wrong;
        on_each_processor([&](int cpu) {
            unsigned by_vdso = 99, by_call = 99;
            getcpu(&by_vdso, nullptr);
            syscall(SYS_getcpu, &by_call, nullptr, nullptr);
            if (sched_getcpu() != cpu) wrong.push_back(1000 + cpu);
            if (by_vdso != static_cast<unsigned>(cpu)) wrong.push_back(2000 + cpu);
            if (by_call != static_cast<unsigned>(cpu)) wrong.push_back(3000 + cpu);
        });
        return wrong;
    });
}

/// What Linux keeps in TSC_AUX, by which the vDSO knows the processor where there is RDPID.
static unsigned processor_register() {
    unsigned number = 0;
    __rdtscp(&number);
    return number & 0xfff;
}

TEST_CASE("a forked child knows its processor") {
    same([] {
        std::vector<int> answers;
        on_each_processor([&](int) {
            answers.push_back(static_cast<int>(processor_register()));
            const int pid = fork();
            if (pid == 0) _exit(static_cast<int>(processor_register()));
            int status = -1;
            waitpid(pid, &status, 0);
            answers.push_back(status);
        });
        return answers;
    });
}

TEST_CASE("the stack grows inside") {
    same([] { return deep(1500); });
    const unsigned long on_thread = in_cell([] {
        unsigned long r = 0;
        std::thread([&] { r = deep(1500); }).join();
        return r;
    });
    CHECK(on_thread == 1500);
}

TEST_CASE("large allocations are zeroed and kept") {
    same([] {
        std::vector<std::size_t> sums;
        for (std::size_t mib : {1, 16, 64}) {
            std::vector<std::uint32_t> v(mib << 18);
            for (std::size_t i = 0; i < v.size(); i += 1024) v[i] += static_cast<std::uint32_t>(i);
            sums.push_back(std::accumulate(v.begin(), v.end(), std::size_t{0}));
        }
        return sums;
    });
}

TEST_CASE("mappings follow mmap and mprotect and mremap and munmap and brk") {
    same([] {
        lines seen;
        constexpr std::size_t length = 64 * 4096;
        auto* p = static_cast<char*>(
            mmap(nullptr, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        std::memset(p, 'a', length);
        seen.push_back(show("mprotect", mprotect(p, 4096, PROT_READ)));
        seen.push_back(show("read only", p[0]));
        seen.push_back(show("mprotect", mprotect(p, 4096, PROT_READ | PROT_WRITE)));
        p[0] = 'b';
        auto* q = static_cast<char*>(mremap(p, length, 4 * length, MREMAP_MAYMOVE));
        seen.push_back(show("moved", q[0]) + q[length - 1] + std::to_string(q[length]));
        q[4 * length - 1] = 'z';
        seen.push_back(show("dontneed", madvise(q, 4096, MADV_DONTNEED)));
        seen.push_back(show("zero again", q[0]));
        auto* fixed = static_cast<char*>(
            mmap(q, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
        seen.push_back(show("fixed", fixed == q) + std::to_string(q[0]) + q[4096]);
        seen.push_back(show("munmap", munmap(q, 4 * length)));
        auto* top = static_cast<char*>(sbrk(1 << 20));
        top[0] = top[(1 << 20) - 1] = 'x';
        seen.push_back(show("brk", top[(1 << 20) - 1]));
        sbrk(-(1 << 20));
        return seen;
    });
}

TEST_CASE("one page seen twice is one page") {
    same([] {
        const int fd = memfd_create("shared", 0);
        (void)!ftruncate(fd, 8192);
        auto* a =
            static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
        auto* b = static_cast<char*>(mmap(nullptr, 8192, PROT_READ, MAP_SHARED, fd, 0));
        a[5000] = 'q';
        const char x = b[5000];
        (void)!pwrite(fd, "w", 1, 5001);
        const std::string both{x, b[5001], a[5001]};
        munmap(a, 8192);
        munmap(b, 8192);
        close(fd);
        return both;
    });
}
