// Random, hostile and concurrent: nothing here checks an answer. The machine has to survive, its
// log to stay empty (tests/engines/init looks) and the module to be free afterwards (lifetime.sh
// looks).
//
// XOS_FUZZ_SECONDS and XOS_FUZZ_SEED in the environment; 2 seconds, and a seed that is printed.
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <random>

#include "tests/guest/support.hpp"
#include "tests/kmod/machine.hpp"

namespace xos::test {

namespace {

using generator = std::mt19937_64;

std::uint64_t number_from(const char* variable, std::uint64_t otherwise) {
    const char* text = std::getenv(variable);
    return text ? std::strtoull(text, nullptr, 0) : otherwise;
}

/// What would end the test, stop it or fill the disk rather than try the module.
constexpr unsigned harmful[] = {SYS_kill,
                                SYS_tkill,
                                SYS_tgkill,
                                SYS_rt_sigqueueinfo,
                                SYS_pause,
                                SYS_rt_sigsuspend,
                                SYS_pidfd_send_signal,
                                SYS_unlink,
                                SYS_rmdir,
                                SYS_unlinkat,
                                SYS_rename,
                                SYS_renameat,
                                SYS_renameat2,
                                SYS_fallocate,
                                SYS_truncate,
                                SYS_ftruncate,
                                SYS_prlimit64,
                                SYS_chmod,
                                SYS_fchmod,
                                SYS_fchmodat,
                                SYS_munmap,
                                SYS_mprotect,
                                SYS_mremap,
                                SYS_mlock,
                                SYS_mlock2,
                                SYS_mmap,
                                SYS_brk,
                                SYS_madvise,
                                SYS_rt_sigprocmask,
                                SYS_chdir,
                                SYS_fchdir,
                                SYS_futex,
                                SYS_futex_waitv,
                                SYS_rt_sigtimedwait};

/// Memory for frames and vectors, parts of which come and go.
struct arena {
    static constexpr std::size_t bytes = 64 * 4096;
    unsigned char* base = static_cast<unsigned char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));

    std::uint64_t anywhere(generator& g) const {
        switch (g() % 8) {
            case 0:
                return g();
            case 1:
                return g() % 8192;
            case 2:
                return 0xffffffff80000000 + g() % (1u << 30);
            case 3:
                return 0x7ffffffff000 + g() % 8192;
            default:
                return address_of(base) + g() % bytes;
        }
    }
    xos_frame* frame(generator& g) const {
        return reinterpret_cast<xos_frame*>(address_of(base) + (g() % (bytes / 64)) * 64);
    }
};

xos_call random_call(generator& g, const arena& a) {
    xos_call c{};
    switch (g() % 8) {
        case 0:
            c.number = g();
            break;
        case 1:
        case 2:
            c.number = XOS_NR_VECTOR;
            c.arguments[0] = a.anywhere(g);
            c.arguments[1] = g() % 4 ? g() % 40 : g();
            return c;
        default:
            c.number = g() % XOS_CALLS;
    }
    for (auto& word : c.arguments) {
        switch (g() % 4) {
            case 0:
                word = a.anywhere(g);
                break;
            case 1:
                word = g() % 4096;
                break;
            case 2:
                word = g() % 16;
                break;
            default:
                word = g();
        }
    }
    return c;
}

/// Those at the ends need no argument beside theirs.
std::uint32_t any_looks(generator& g) {
    constexpr std::uint32_t alone[] = {XOS_LOOK_NOT, XOS_LOOK_OPENED, XOS_LOOK_START,
                                       XOS_LOOK_START + 1, XOS_LOOK_DESCRIPTOR};
    std::uint32_t looks = XOS_CALL_MADE;
    for (unsigned i = 0; i < 6; i++)
        looks |= static_cast<std::uint32_t>(i % 5 ? g() % 16 : alone[g() % 5])
                 << (i * XOS_LOOK_BITS);
    return looks;
}

void ring(machine& m, const arena& a, unsigned vcpu, generator g, const std::atomic<bool>& over) {
    while (!over) {
        xos_frame* frame = g() % 16 ? a.frame(g) : reinterpret_cast<xos_frame*>(a.anywhere(g));
        m.add_vcpu(vcpu, frame);
        const itimerval soon{{0, 2000}, {0, static_cast<suseconds_t>(1 + g() % 3000)}};
        setitimer(ITIMER_REAL, &soon, nullptr);
        for (int i = 0; i < 20; i++) m.ring(vcpu, 1 + g() % 3);
    }
}

/// Writes what rings are reading, and takes it away.
void disturb(machine& m, const arena& a, generator g, const std::atomic<bool>& over) {
    while (!over) {
        for (int i = 0; i < 50; i++) {
            const xos_call c = random_call(g, a);
            const std::size_t at = (g() % (arena::bytes / 64 - 2)) * 64;
            xos_frame f{g() % 8 ? 0 : g(), c};
            const xos_call self = f.call;
            const std::uint64_t from = address_of(&f), to = address_of(a.base) + at;
            // By the kernel, which answers -EFAULT where memory is away just now.
            const iovec local{reinterpret_cast<void*>(from), sizeof f},
                remote{reinterpret_cast<void*>(to), sizeof self + 8};
            process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
        }
        unsigned char* page = a.base + (g() % 64) * 4096;
        switch (g() % 4) {
            case 0:
                mprotect(page, 4096, PROT_READ);
                break;
            case 1:
                mprotect(page, 4096, PROT_NONE);
                break;
            case 2:
                madvise(page, 4096, MADV_DONTNEED);
                break;
            default:
                break;
        }
        mprotect(a.base + (g() % 64) * 4096, 4096, PROT_READ | PROT_WRITE);
        kvm_userspace_memory_region r{1, 0, 1 << 30, g() % 2 ? 4096u : 0u, address_of(a.base)};
        ioctl(m.vm(), KVM_SET_USER_MEMORY_REGION, &r);
    }
}

/// Any request with anything in it, on this device and on one of its own.
void ask(machine& m, const arena& a, generator g, const std::atomic<bool>& over) {
    while (!over) {
        const int device = g() % 2 ? m.device() : open("/dev/xos", O_RDWR | O_CLOEXEC);
        alignas(8) unsigned char argument[sizeof(xos_statistics) + 64];
        for (int i = 0; i < 10; i++) {
            for (unsigned k = 0; k < 128; k += 8) {
                const std::uint64_t word = g() % 2 ? g() % 64 : a.anywhere(g);
                std::memcpy(argument + k, &word, 8);
            }
            const unsigned long requests[] = {XOS_IOC_INFO, XOS_IOC_ATTACH,     XOS_IOC_VCPU,
                                              XOS_IOC_RUN,  XOS_IOC_STATISTICS, XOS_IOC_LAYOUT,
                                              XOS_IOC_GUARD};
            unsigned long request = requests[g() % 7];
            if (g() % 8 == 0) request = g();
            if (request == XOS_IOC_VCPU && device == m.device())
                argument[0] = 60;  // not one that runs
            if (request == XOS_IOC_ATTACH && g() % 2) {
                auto& attach = *reinterpret_cast<xos_attach*>(argument);
                attach.abi_version = XOS_ABI_VERSION;
                attach.vm_fd = m.vm();
                attach.max_vcpus = g() % 5000;
                attach.port = 0x600 + g() % 256;
                attach.calls = a.anywhere(g);
            }
            const bool wild = g() % 4 == 0;
            ioctl(device, request, wild ? a.anywhere(g) : address_of(argument));
        }
        if (device != m.device()) close(device);
    }
}

[[noreturn]] void fuzz(std::uint64_t seed, unsigned milliseconds) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    generator g(seed);
    // What calls print must not reach the report, and files they make must not fill memory.
    const int null = open("/dev/null", O_RDWR);
    for (int fd : {0, 1, 2}) dup2(null, fd);
    const rlimit small{1 << 16, 1 << 16}, files{256, 256};
    setrlimit(RLIMIT_FSIZE, &small);
    setrlimit(RLIMIT_NOFILE, &files);
    (void)!chdir("/tmp");
    struct sigaction quiet {};
    quiet.sa_handler = [](int) {};
    for (int s : {SIGALRM, SIGPIPE, SIGXFSZ, SIGIO, SIGURG, SIGCHLD}) sigaction(s, &quiet, nullptr);

    call_list calls;
    for (auto& looks : calls) looks = any_looks(g);
    for (unsigned n : harmful) calls[n] = 0;
    const arena a;
    machine m(3, machine::attachment::none);
    m.descriptors = reinterpret_cast<const std::uint64_t*>(a.base);
    if (m.attach(m.vm(), calls) != 0) _exit(1);
    // The arena guards itself, and holds its own tables.
    if (m.guard({address_of(a.base), arena::bytes, 0, address_of(a.base), 0, arena::bytes}) != 0)
        _exit(1);
    std::atomic<bool> over = false;
    std::vector<std::thread> all;
    for (unsigned v = 0; v < 3; v++)
        all.emplace_back([&, v, s = g()] { ring(m, a, v, generator(s), over); });
    all.emplace_back([&, s = g()] { disturb(m, a, generator(s), over); });
    all.emplace_back([&, s = g()] { ask(m, a, generator(s), over); });
    // Killed by the parent in the midst of it, or at its own end.
    usleep(milliseconds * 1000);
    _exit(0);
}

}  // namespace

TEST_CASE("the kernel survives hostile doorbells and requests") {
    const std::uint64_t seed = number_from("XOS_FUZZ_SEED", std::random_device{}());
    const std::uint64_t seconds = number_from("XOS_FUZZ_SECONDS", 2);
    printf("seed %llu\n", static_cast<unsigned long long>(seed));
    fflush(stdout);
    generator g(seed);
    unsigned rounds = 0;
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    do {
        const unsigned milliseconds = 100 + static_cast<unsigned>(g() % 900);
        const bool killed = g() % 2;
        const int pid = fork();
        if (pid == 0) fuzz(g() + rounds, killed ? 100'000 : milliseconds);
        if (killed) {
            usleep(milliseconds * 1000);
            kill(pid, SIGKILL);
        }
        int status = 0;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
        }
        INFO(describe(status));
        // A wild write may hit the process itself; it must not fail to begin.
        CHECK(!(WIFEXITED(status) && WEXITSTATUS(status) == 1));
        rounds++;
    } while (std::chrono::steady_clock::now() < end);
    machine m;
    CHECK(m.make(call(SYS_getppid)) == returned{returned::why::halted});
    printf("%u processes\n", rounds);
}

}  // namespace xos::test
