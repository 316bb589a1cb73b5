// Memory may be executed exactly where Linux says so.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/shm.h>
#include <unistd.h>

#include <cstring>
#include <random>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr int read_write = PROT_READ | PROT_WRITE, read_execute = PROT_READ | PROT_EXEC;

sigjmp_buf back;

/// "returns 7", or the signal.
std::string run(const void* code) {
    static std::string seen;
    struct sigaction action {
    }, before{};
    action.sa_sigaction = [](int signal, siginfo_t* info, void*) {
        seen = "signal " + std::to_string(signal) + " code " + std::to_string(info->si_code);
        siglongjmp(back, 1);
    };
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &before);
    if (!sigsetjmp(back, 1))
        seen = "returns " + std::to_string(reinterpret_cast<int (*)()>(code)());
    sigaction(SIGSEGV, &before, nullptr);
    return seen;
}

/// mov $value, %eax; ret
void write_code(void* at, unsigned char value) {
    const unsigned char code[] = {0xb8, value, 0, 0, 0, 0xc3};
    std::memcpy(at, code, sizeof code);
}

/// Linux's: what the cell would serve from its own arena is shared or in a file.
char* map_shared(std::size_t length, int protection) {
    void* at = mmap(nullptr, length, protection, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    REQUIRE(at != MAP_FAILED);
    return static_cast<char*>(at);
}

lines protections_of_code() {
    lines seen;
    for (int kind : {MAP_SHARED, MAP_PRIVATE}) {
        char* page =
            static_cast<char*>(mmap(nullptr, 3 * 4096, read_write, kind | MAP_ANONYMOUS, -1, 0));
        char* const code = page + 4096;
        write_code(code, 7);
        seen.push_back("writable: " + run(code));
        mprotect(code, 4096, read_execute);
        seen.push_back("executable: " + run(code));
        seen.push_back("its neighbours: " + run(page) + ", " + run(page + 2 * 4096));
        mprotect(code, 4096, read_write);
        write_code(code, 8);
        seen.push_back("writable again: " + run(code));
        mprotect(code, 4096, read_write | PROT_EXEC);
        write_code(code, 9);
        seen.push_back("both: " + run(code));
        mprotect(code, 4096, PROT_NONE);
        seen.push_back("nothing: " + run(code));
        mprotect(page, 3 * 4096, read_execute);
        seen.push_back("all of it: " + run(code));
        munmap(page, 3 * 4096);
        seen.push_back("unmapped: " + run(code));
        char* const again = static_cast<char*>(
            mmap(page, 3 * 4096, read_write, kind | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0));
        seen.push_back(again == page ? "mapped again" : "elsewhere");
        write_code(again + 4096, 10);
        seen.push_back("as data: " + run(again + 4096));
        munmap(again, 3 * 4096);
    }
    return seen;
}

lines code_that_moves() {
    lines seen;
    char* const from = map_shared(8192, read_write | PROT_EXEC);
    write_code(from + 4096, 11);
    seen.push_back(run(from + 4096));
    char* const room = map_shared(3 * 4096, read_write);
    void* const to = mremap(from, 8192, 8192, MREMAP_MAYMOVE | MREMAP_FIXED, room);
    seen.push_back(to == room ? "moved" : "not moved");
    seen.push_back(run(room + 4096));
    seen.push_back(run(from + 4096));
    void* const data =
        mmap(from, 8192, read_write, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    seen.push_back(data == from ? "mapped again" : "elsewhere");
    write_code(from + 4096, 12);
    seen.push_back(run(from + 4096));
    // Data over code that was there.
    mmap(room, 8192, read_write, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    write_code(room + 4096, 13);
    seen.push_back(run(room + 4096));
    munmap(room, 3 * 4096);
    munmap(from, 8192);
    return seen;
}

lines code_from_a_file() {
    const int fd = memfd_create("code", 0);
    char page[4096] = {};
    write_code(page, 14);
    lines seen{outcome_of("write", write(fd, page, sizeof page), errno)};
    for (int protection : {int{PROT_READ}, read_execute}) {
        void* at = mmap(nullptr, sizeof page, protection, MAP_PRIVATE, fd, 0);
        seen.push_back(run(at));
        munmap(at, sizeof page);
    }
    close(fd);
    return seen;
}

lines code_in_shared_memory() {
    lines seen;
    const int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0700);
    for (int flags : {0, SHM_EXEC}) {
        void* const at = shmat(id, nullptr, flags);
        write_code(at, 15);
        seen.push_back(run(at));
        shmdt(at);
        void* const data = mmap(at, 4096, read_write, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        seen.push_back(data == at ? "mapped again" : "elsewhere");
        write_code(data, 16);
        seen.push_back(run(data));
        munmap(data, 4096);
    }
    shmctl(id, IPC_RMID, nullptr);
    return seen;
}

/// Old programs: what may be read may be executed.
lines reading_implies_executing() {
    lines seen;
    const int before = personality(0xffffffff);
    personality(static_cast<unsigned>(before) | READ_IMPLIES_EXEC);
    char* const page = map_shared(4096, read_write);
    write_code(page, 17);
    seen.push_back(run(page));
    personality(static_cast<unsigned>(before));
    char* const other = map_shared(4096, read_write);
    write_code(other, 18);
    seen.push_back(run(other));
    munmap(page, 4096);
    munmap(other, 4096);
    return seen;
}

/// As a just-in-time compiler does: many pages, made executable and writable again in any order.
lines random_changes() {
    constexpr unsigned pages = 1200, steps = 300;  // more than two large pages
    lines seen;
    char* const region = map_shared(pages * 4096, read_write);
    for (unsigned i = 0; i < pages; i++)
        write_code(region + i * 4096, static_cast<unsigned char>(i));
    std::mt19937 random(4711);
    for (unsigned i = 0; i < steps; i++) {
        const unsigned first = random() % pages, count = random() % 8 + 1;
        const unsigned length = std::min(count, pages - first);
        mprotect(region + first * 4096, length * 4096, random() % 2 ? read_execute : read_write);
        const unsigned at = random() % pages;
        seen.push_back(std::to_string(at) + " " + run(region + at * 4096));
    }
    munmap(region, pages * 4096);
    return seen;
}

}  // namespace

TEST_CASE("memory can be executed where its protection says so") {
    const lines seen = same(protections_of_code);
    CHECK(seen[0] == "writable: signal 11 code 2");
    CHECK(seen[1] == "executable: returns 7");
}

TEST_CASE("code that is moved or replaced leaves nothing executable behind") {
    const lines seen = same(code_that_moves);
    CHECK(seen[2] == "returns 11");
    CHECK(seen[5] == "signal 11 code 2");
}

TEST_CASE("a file's code runs where it is mapped as code") {
    CHECK(same(code_from_a_file)[2] == "returns 14");
}

TEST_CASE("shared memory may be executed with SHM_EXEC alone") {
    CHECK(same(code_in_shared_memory)[3] == "returns 15");
}

TEST_CASE("READ_IMPLIES_EXEC makes data executable") {
    CHECK(same(reading_implies_executing)[0] == "returns 17");
}

TEST_CASE("pages become executable and writable again at random") {
    same(random_changes);
}

TEST_CASE("code that another thread takes away cannot be executed any more") {
    // Inside, a thread executes a page again and again while another changes it between code and
    // data.
    const auto probe = [] {
        static char* page;
        static std::atomic<int> writes, refusals;
        page = map_shared(4096, read_execute);
        mprotect(page, 4096, read_write);
        write_code(page, 1);
        mprotect(page, 4096, read_execute);
        writes = refusals = 0;
        struct sigaction action {
        }, before{};
        action.sa_handler = [](int) {
            refusals++;
            siglongjmp(back, 1);
        };
        sigaction(SIGSEGV, &action, &before);
        std::atomic<bool> done = false;
        std::atomic<long> runs = 0;
        std::thread writer([&] {
            const bool running = eventually([&] { return runs > 0; });
            for (int i = 0; running && i < 200; i++) {
                mprotect(page, 4096, read_write);
                // Nobody executes it now, so that it may be half written.
                std::memset(page, 0xcc, 64);
                write_code(page, static_cast<unsigned char>(i));
                mprotect(page, 4096, read_execute);
                writes++;
            }
            done = true;
        });
        while (!done) {
            if (!sigsetjmp(back, 1)) runs += reinterpret_cast<int (*)()>(page)() >= 0;
        }
        writer.join();
        sigaction(SIGSEGV, &before, nullptr);
        return show("writes", writes);
    };
    CHECK(same(probe) == "writes=200");
}
