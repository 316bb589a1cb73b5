// Memory about which Linux is told something, or of which it holds a reference: natively and in the
// cell, and afterwards nothing of it may be left for whoever gets the same memory next.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string_view>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t page = 4096;

sigjmp_buf refused;
void on_refusal(int signal, siginfo_t* info, void*) {
    siglongjmp(refused, signal * 100 + info->si_code);
}

/// What touching a byte gives: 0, or the signal and its code.
int touch(volatile char* at, bool write) {
    struct sigaction wanted {
    }, before[2];
    wanted.sa_sigaction = on_refusal;
    wanted.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &wanted, &before[0]);
    sigaction(SIGBUS, &wanted, &before[1]);
    const int how = sigsetjmp(refused, 1);
    if (how == 0) {
        const char held = *at;
        if (write) *at = held;
    }
    sigaction(SIGSEGV, &before[0], nullptr);
    sigaction(SIGBUS, &before[1], nullptr);
    return how;
}

char* map(std::size_t pages, int protection = PROT_READ | PROT_WRITE, int flags = 0) {
    void* at = mmap(nullptr, pages * page, protection, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);
    return at == MAP_FAILED ? nullptr : static_cast<char*>(at);
}

/// Whether memory that is mapped afterwards is whole, zero and writable.
std::string next_memory(std::size_t pages) {
    std::vector<char*> all;
    unsigned faults = 0, not_zero = 0;
    for (int i = 0; i < 12; i++) {
        char* at = map(pages);
        for (std::size_t k = 0; k < pages; k++) {
            if (touch(at + k * page, true))
                faults++;
            else if (at[k * page])
                not_zero++;
        }
        all.push_back(at);
    }
    for (char* at : all) munmap(at, pages * page);
    return std::to_string(faults) + " faults, " + std::to_string(not_zero) + " not zero";
}

/// Every second page, as touched for reading and for writing.
std::string looks(char* at, std::size_t pages) {
    std::string text;
    for (std::size_t k = 0; k < pages; k += 2)
        text += std::to_string(touch(at + k * page, false)) + "/" +
                std::to_string(touch(at + k * page, true)) + " ";
    return text;
}

long call_mseal(void* at, std::size_t length) {
    return syscall(462, at, length, 0);
}

}  // namespace

TEST_CASE("no advice that this kernel knows stays with memory when it is unmapped") {
    same([] {
        lines seen;
        for (int advice = -1; advice < 130; advice++) {
            if (advice == 100 || advice == 101) continue;  // poisons the page for everybody
            char* at = map(16);
            std::memset(at, 7, 16 * page);
            const std::string name = "advice " + std::to_string(advice);
            const std::string answer =
                outcome_of(name, [&] { return madvise(at, 8 * page, advice); });
            seen.push_back(answer);
            seen.push_back(looks(at, 16));
            seen.push_back(outcome_of("again", [&] { return madvise(at + page, page, advice); }));
            seen.push_back(outcome_of("unmap", [&] { return munmap(at, 16 * page); }));
            // Advice that is refused leaves nothing behind.
            if (!answer.ends_with("EINVAL")) seen.push_back(next_memory(16));
        }
        return seen;
    });
}

TEST_CASE("advice about a range with a hole does what Linux does with it") {
    same([] {
        lines seen;
        for (int advice :
             {0, 3, 4, 8, 9, 10, 11, 12, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 102}) {
            char* at = map(8);
            std::memset(at, 7, 8 * page);
            munmap(at + 2 * page, 2 * page);
            seen.push_back(
                outcome_of(std::to_string(advice), [&] { return madvise(at, 8 * page, advice); }));
            if (advice != 102 && advice != 14 && advice != 15)
                seen.push_back(show("first", at[0]) + show(" last", at[7 * page]));
            munmap(at, 8 * page);
        }
        seen.push_back(next_memory(8));
        return seen;
    });
}

TEST_CASE(
    "every flag of mmap gives what Linux gives, at an address of libxos's choice and at one's "
    "own") {
    same([] {
        lines seen;
        for (unsigned bit = 0; bit < 32; bit++) {
            const int flag = static_cast<int>(1u << bit);
            // Sharing is another kind of mapping; locking and huge pages depend on limits.
            if (flag == MAP_SHARED || flag == MAP_PRIVATE || flag == MAP_LOCKED) continue;
            if (flag == MAP_HUGETLB || flag == MAP_FIXED || flag == MAP_FIXED_NOREPLACE) continue;
            const std::string name = "bit " + std::to_string(bit);
            char* at = map(4, PROT_READ | PROT_WRITE, flag);
            seen.push_back(name + (at ? " ok" : " failed"));
            if (!at) continue;
            seen.push_back(show("touch", touch(at, true)));
            if (flag != MAP_GROWSDOWN) munmap(at, 4 * page);
            char* hole = map(16);
            munmap(hole, 16 * page);
            void* fixed = mmap(hole + 12 * page, 4 * page, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | flag, -1, 0);
            seen.push_back(show("fixed", fixed == hole + 12 * page));
            seen.push_back(show("touch", touch(hole + 12 * page, true)));
            munmap(hole, 16 * page);
        }
        seen.push_back(next_memory(4));
        return seen;
    });
}

TEST_CASE("a sealed mapping stays as it is") {
    same([] {
        lines seen;
        char* at = map(8);
        std::strcpy(at, "sealed");
        mprotect(at, 8 * page, PROT_READ);
        seen.push_back(outcome_of("mseal", [&] { return call_mseal(at, 8 * page); }));
        if (errno == ENOSYS) return seen;
        seen.push_back(outcome_of("mprotect", [&] { return mprotect(at, page, PROT_WRITE); }));
        seen.push_back(outcome_of("discard", [&] { return madvise(at, page, MADV_DONTNEED); }));
        seen.push_back(outcome_of("munmap", [&] { return munmap(at, 8 * page); }));
        seen.push_back(outcome_of("over it", [&] {
            return mmap(at, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == at;
        }));
        seen.push_back(at);
        return seen;
    });
}

TEST_CASE("what may be executed is Linux's to decide") {
    same([] {
        lines seen;
        constexpr int deny = 65;  // PR_SET_MDWE
        char* before = map(1);
        seen.push_back(outcome_of("deny", [] { return prctl(deny, 1, 0, 0, 0); }));
        const auto executable = [](char* at) {
            return outcome_of("rx", [&] { return mprotect(at, page, PROT_READ | PROT_EXEC); });
        };
        seen.push_back(executable(before));
        seen.push_back(executable(map(1)));
        seen.push_back(show("rwx", map(1, PROT_READ | PROT_WRITE | PROT_EXEC) != nullptr));
        return seen;
    });
}

TEST_CASE("every option of prctl that this kernel knows answers what Linux answers") {
    same([] {
        lines seen;
        for (int option = 1; option < 96; option++) {
            if (option == PR_SET_DUMPABLE || option == PR_CAPBSET_DROP) continue;  // for good
            seen.push_back(
                outcome_of(std::to_string(option), [&] { return prctl(option, 0, 0, 0, 0); }));
        }
        char* at = map(4);
        // PR_SET_VMA, PR_SET_VMA_ANON_NAME
        seen.push_back(outcome_of(
            "name", [&] { return prctl(0x53564d41, 0, at + page, page, "guest test"); }));
        seen.push_back(show("touch", touch(at + page, true)));
        munmap(at, 4 * page);
        seen.push_back(next_memory(4));
        return seen;
    });
}

TEST_CASE("every feature of userfaultfd that this kernel has is there in the cell") {
    same([] {
        lines seen;
        for (unsigned bit = 0; bit < 32; bit++) {
            const int watcher = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
            if (watcher < 0) return lines{"no userfaultfd"};
            uffdio_api wanted{};
            wanted.api = UFFD_API;
            wanted.features = std::uint64_t{1} << bit;
            seen.push_back(outcome_of(std::to_string(bit),
                                      [&] { return ioctl(watcher, UFFDIO_API, &wanted); }));
            seen.push_back(std::to_string(wanted.features) + " " + std::to_string(wanted.ioctls));
            close(watcher);
        }
        return seen;
    });
}

TEST_CASE("code in memory that was mapped inside runs, and does not when it may not") {
    same([] {
        lines seen;
        // mov eax, 42; ret
        static const unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
        char* at = map(4);
        std::memcpy(at + page, code, sizeof code);
        const auto run = [&] {
            struct sigaction wanted {
            }, before;
            wanted.sa_sigaction = on_refusal;
            wanted.sa_flags = SA_SIGINFO;
            sigaction(SIGSEGV, &wanted, &before);
            int result = sigsetjmp(refused, 1);
            if (result == 0) result = reinterpret_cast<int (*)()>(at + page)();
            sigaction(SIGSEGV, &before, nullptr);
            return result;
        };
        seen.push_back(show("before", run()));
        mprotect(at, 4 * page, PROT_READ | PROT_EXEC);
        seen.push_back(show("executable", run()));
        mprotect(at, 4 * page, PROT_READ | PROT_WRITE);
        seen.push_back(show("not any more", run()));
        mprotect(at, 4 * page, PROT_READ | PROT_EXEC);
        seen.push_back(show("again", run()));
        munmap(at, 4 * page);
        char* next = map(4);
        std::memcpy(next + page, code, sizeof code);
        at = next;
        seen.push_back(show("other memory", run()));
        return seen;
    });
}

TEST_CASE("pages lent to a pipe keep their contents whatever becomes of the memory") {
    same([] {
        lines seen;
        for (int how = 0; how < 4; how++) {
            int ends[2];
            if (pipe(ends) != 0) return seen;
            char* at = map(8);
            std::memset(at, 'A', 8 * page);
            iovec buffer{at, 8 * page};
            seen.push_back(
                show("lent", vmsplice(ends[1], &buffer, 1, how == 1 ? SPLICE_F_GIFT : 0)));
            if (how < 2) munmap(at, 8 * page);
            if (how == 2) madvise(at, 8 * page, MADV_DONTNEED);
            if (how == 3) mremap(at, 8 * page, 256 * page, MREMAP_MAYMOVE);
            for (int i = 0; i < 20; i++) {
                if (char* other = map(8)) std::memset(other, 'Z', 8 * page);
            }
            std::string held(8 * page, 0);
            std::size_t got = 0;
            for (ssize_t n; got < held.size() &&
                            (n = read(ends[0], held.data() + got, held.size() - got)) > 0;)
                got += static_cast<std::size_t>(n);
            seen.push_back(show("changed", held.find_first_not_of('A') != std::string::npos));
            close(ends[0]);
            close(ends[1]);
        }
        return seen;
    });
}

TEST_CASE("calls find no memory where there is none any more") {
    same([] {
        lines seen;
        // A call that finds a bad address first can leave a pipe that is ready, and empty.
        int ends[2];
        if (pipe2(ends, O_NONBLOCK) != 0) return seen;
        char* at = map(64);
        std::memset(at, 1, 64 * page);
        munmap(at + 8 * page, 8 * page);
        mprotect(at + 24 * page, 4 * page, PROT_NONE);
        mprotect(at + 32 * page, 4 * page, PROT_READ);
        unsigned char resident[64];
        const int self = static_cast<int>(getpid());
        static char sink[64 * page];
        for (std::size_t k : {0, 6, 8, 22, 24, 30, 32}) {
            char* from = at + k * page;
            const std::size_t n = 4 * page;
            const std::string name = "page " + std::to_string(k) + " ";
            const auto note = [&](const char* what, auto call) {
                seen.push_back(outcome_of(name + what, call));
            };
            note("mincore", [&] { return mincore(from, n, resident); });
            note("msync", [&] { return msync(from, n, MS_ASYNC); });
            note("munlock", [&] { return munlock(from, n); });
            note("willneed", [&] { return madvise(from, n, MADV_WILLNEED); });
            note("wake", [&] { return syscall(SYS_futex, from, 1, 1, 0, 0, 0); });
            note("write", [&] { return write(ends[1], from + 100, n); });
            while (read(ends[0], sink, sizeof sink) > 0) {
            }
            iovec two[2] = {{at, 10}, {from, n}};
            note("writev", [&] { return writev(ends[1], two, 2); });
            while (read(ends[0], sink, sizeof sink) > 0) {
            }
            (void)!write(ends[1], sink, 6 * page);
            note("read", [&] { return read(ends[0], from, n); });
            while (read(ends[0], sink, sizeof sink) > 0) {
            }
            iovec local{sink, n}, remote{from, n};
            note("look", [&] { return process_vm_readv(self, &local, 1, &remote, 1, 0); });
            note("access", [&] { return access(from, R_OK); });
            note("open", [&] { return open(from, O_RDONLY); });
        }
        seen.push_back(next_memory(8));
        return seen;
    });
}

TEST_CASE("the program's memory by its own file shows what is mapped") {
    same([] {
        lines seen;
        char* at = map(16);
        std::memset(at, 1, 16 * page);
        munmap(at + 4 * page, 4 * page);
        const int memory = open("/proc/self/mem", O_RDONLY);
        char byte;
        for (std::size_t k = 0; k < 16; k += 3)
            seen.push_back(outcome_of(std::to_string(k), [&] {
                return pread(memory, &byte, 1, reinterpret_cast<off_t>(at + k * page));
            }));
        seen.push_back(next_memory(16));
        close(memory);
        return seen;
    });
}

TEST_CASE("a program that limits its address space gets no more, and keeps working") {
    ensure_cell();
    same([] {
        lines seen;
        char* early = map(16);
        std::memset(early, 5, 16 * page);
        struct rlimit limit {};
        getrlimit(RLIMIT_AS, &limit);
        const struct rlimit before = limit;
        limit.rlim_cur = std::size_t{4} << 30;
        seen.push_back(outcome_of("limit", [&] { return setrlimit(RLIMIT_AS, &limit); }));
        seen.push_back(show("too much", map((std::size_t{6} << 30) / page) != nullptr));
        constexpr std::size_t piece = std::size_t{64} << 20;
        std::vector<char*> all;
        while (char* at = all.size() < 100 ? map(piece / page) : nullptr) all.push_back(at);
        seen.push_back(show("all of it", all.size() == 100));
        seen.push_back(show("some of it", all.size() > 20));
        for (char* at : all) munmap(at, piece);
        seen.push_back(show("kept", early[15 * page]));
        seen.push_back(show("given back", munmap(early, 16 * page)));
        seen.push_back(show("touch", touch(early, false)));
        setrlimit(RLIMIT_AS, &before);
        return seen;
    });
}

TEST_CASE("files are mapped over the heap while all memory becomes Linux's") {
    // Maps a file over a part of a mapping and unmaps it, until told to end; the first error, or 0.
    const auto map_files = [](char* base, int file, const std::atomic<bool>& end) {
        for (unsigned i = 0; !end.load(std::memory_order_relaxed) || i < 8; i++) {
            char* const at = base + i % 16 * page;
            if (mmap(at, page, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0) != at) return 1;
            if (at[0] != 'x') return 2;
            if (munmap(at, page) != 0) return 3;
            unsigned char resident = 0;
            if (mincore(at, page, &resident) != -1 || errno != ENOMEM) return 4;
        }
        return 0;
    };
    const auto retire = [&](unsigned round) {
        const int file = memfd_create("file", MFD_CLOEXEC);
        if (write(file, "x", 1) != 1 || ftruncate(file, page) != 0) return 10;
        auto* const base = static_cast<char*>(
            mmap(nullptr, 16 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        std::atomic<bool> end = false;
        std::atomic<int> wrong = -1;
        std::thread other([&] { wrong = map_files(base, file, end); });
        for (unsigned i = 0; i < round; i++) sched_yield();
        close(static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC)));
        end = true;
        other.join();
        return wrong.load();
    };
    same([&] {
        lines seen;
        for (unsigned round = 0; round < 12; round++)
            seen.push_back(in_child([&] { return retire(round); }).status);
        return seen;
    });
}

TEST_CASE("memory watched by a userfaultfd is Linux's, also what was used before") {
    const auto natively = [] {
        lines seen;
        char* used = map(64);
        std::memset(used, 1, 64 * page);
        munmap(used, 64 * page);
        char* at = map(64);
        const int watcher = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK));
        if (watcher < 0) return lines{"no userfaultfd"};
        uffdio_api wanted{};
        wanted.api = UFFD_API;
        wanted.features = UFFD_FEATURE_SIGBUS;
        seen.push_back(show("api", ioctl(watcher, UFFDIO_API, &wanted)));
        uffdio_register watch{};
        watch.range = {reinterpret_cast<std::uint64_t>(at), 64 * page};
        watch.mode = UFFDIO_REGISTER_MODE_MISSING;
        seen.push_back(show("register", ioctl(watcher, UFFDIO_REGISTER, &watch)));
        unsigned missing = 0;
        for (std::size_t k = 0; k < 64; k++) missing += touch(at + k * page, true) != 0;
        seen.push_back(show("missing", missing));
        munmap(at, 64 * page);
        seen.push_back(next_memory(64));
        close(watcher);
        return seen;
    };
    same(natively);
}

TEST_CASE("who serves page faults may touch memory that nobody has touched before") {
    const auto served = [] {
        lines seen;
        constexpr std::size_t far = std::size_t{1} << 30;
        const auto reserve = [](std::size_t bytes) {
            return static_cast<char*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        };
        char* watched = reserve(2 * far);
        char* table = reserve(8 * far);
        const int watcher = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC));
        if (watcher < 0) return lines{"no userfaultfd"};
        uffdio_api wanted{};
        wanted.api = UFFD_API;
        ioctl(watcher, UFFDIO_API, &wanted);
        uffdio_register watch{};
        watch.range = {reinterpret_cast<std::uint64_t>(watched), 2 * far};
        watch.mode = UFFDIO_REGISTER_MODE_MISSING;
        seen.push_back(show("register", ioctl(watcher, UFFDIO_REGISTER, &watch)));
        constexpr int faults = 4;
        std::thread server([=] {
            static char filled[page];
            for (int i = 0; i < faults; i++) {
                uffd_msg message;
                if (read(watcher, &message, sizeof message) != sizeof message) return;
                table[static_cast<std::size_t>(i + 1) * far] = 1;
                std::memset(filled, 'p', page);
                uffdio_copy copy{};
                copy.dst = message.arg.pagefault.address & ~std::uint64_t{page - 1};
                copy.src = reinterpret_cast<std::uint64_t>(filled);
                copy.len = page;
                ioctl(watcher, UFFDIO_COPY, &copy);
            }
        });
        std::string got;
        for (int i = 0; i < faults; i++) got += static_cast<volatile char*>(watched)[i * page];
        server.join();
        seen.push_back(got);
        close(watcher);
        munmap(watched, 2 * far);
        munmap(table, 8 * far);
        return seen;
    };
    same(served);
}

namespace {
/// How much writable memory of its own the process has that Linux would write to a core
/// file, in MiB.
std::uint64_t dumpable() {
    std::ifstream maps("/proc/self/smaps");
    std::uint64_t sum = 0, size = 0;
    bool writable = false;
    for (std::string line; std::getline(maps, line);) {
        unsigned long begin, end;
        char permissions[5] = {};
        if (std::sscanf(line.c_str(), "%lx-%lx %4s", &begin, &end, permissions) == 3) {
            writable = std::string_view(permissions) == "rw-p";
            size = end - begin;
        } else if (line.starts_with("VmFlags:") && writable &&
                   line.find(" dd") == std::string::npos) {
            sum += size;
        }
    }
    return sum >> 20;
}

}  // namespace

TEST_CASE("what libxos keeps in reserve is no part of a core file") {
    const std::uint64_t natively = dumpable();
    const std::uint64_t inside = in_cell([] {
        char* at = map(16);
        const std::uint64_t found = dumpable();
        munmap(at, 16 * page);
        return found;
    });
    // The trap stacks of all vCPUs that there may be, and what the arena has grown to.
    CHECK(inside - natively < 256);
}

TEST_CASE("a program cannot take libxos's own memory away") {
    const std::string answers = in_cell([] {
        // The vCPU's areas: the application's GS points there.
        std::uint64_t gs;
        asm("movq %%gs:0, %0" : "=r"(gs));
        auto* own = reinterpret_cast<void*>(gs & ~std::uint64_t{4095});
        std::string text;
        text += outcome_of("munmap", [&] { return munmap(own, page); }) + " ";
        text += outcome_of("mprotect", [&] { return mprotect(own, page, PROT_NONE); }) + " ";
        text += outcome_of("discard", [&] { return madvise(own, page, MADV_DONTNEED); }) + " ";
        text += outcome_of("over it", [&] {
            void* r = mmap(own, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
            return r == MAP_FAILED ? -1 : 0;
        });
        return text;
    });
    CHECK(answers == "munmap=-1 EPERM mprotect=-1 EPERM discard=-1 EPERM over it=-1 EPERM");
}
