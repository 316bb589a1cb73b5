// The log of system calls says what was called, and changes nothing.
#include "libxos/syscall/trace.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <regex>

#include "libxos/cell/cell.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/syscall/table.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

struct logged {
    lines all;

    /// Lines whose call begins so, without thread and time.
    lines of(const std::string& beginning) const {
        lines found;
        for (const auto& line : all) {
            const auto call = line.substr(line.find(' ') + 1);
            if (call.starts_with(beginning)) found.push_back(call.substr(0, call.rfind(' ')));
        }
        return found;
    }
    bool well_formed() const {
        static const std::regex form(
            R"(\d+ \w+\(.*\) = (-1 E\w+|-?\d+|0x[0-9a-f]+) <(exit|emulated|local) \d+\.\dus>)"
            R"(|\d+ \w+\(.*\) = \? <emulated>)");
        return std::ranges::all_of(all,
                                   [](const auto& line) { return std::regex_match(line, form); });
    }
};

std::ostream& operator<<(std::ostream& out, const logged& l) {
    for (const auto& line : l.all) out << line << "\n";
    return out;
}

lines lines_of(const std::string& file) {
    std::ifstream in(file);
    lines all;
    for (std::string line; std::getline(in, line);) all.push_back(line);
    return all;
}

void start_traced_cell(int fd) {
    start({.mode = wanted_mode(), .transport = transport::exit});
    syscall::start_trace(cell::the_cell.descriptors.adopt(fd));
}

/// What `body` does in a traced cell.
template <class Body>
logged traced(Body body) {
    char name[] = "/tmp/xos-trace-XXXXXX";
    close(mkstemp(name));
    start_traced_cell(open(name, O_WRONLY | O_APPEND));
    in_cell([&] {
        body();
        return 0;
    });
    logged log{lines_of(name)};
    unlink(name);
    INFO(log);
    CHECK(log.well_formed());
    return log;
}

template <class T>
T* at(std::uintptr_t address) {
    static volatile std::uintptr_t opaque;
    opaque = address;
    return reinterpret_cast<T*>(opaque);
}

constexpr std::size_t page = 4096;

}  // namespace

TEST_CASE("trace: arguments are decoded by their kinds") {
    const auto log = traced([] {
        int ends[2];
        char text[8];
        (void)!pipe(ends);
        dup2(ends[0], 100);
        dup2(ends[1], 101);
        (void)!write(101, "a\"b\n\x01", 5);
        (void)!read(100, text, sizeof text);
        open("/nonexistent/file", O_RDONLY | O_CLOEXEC);
        mkdir("/nonexistent/directory", 0750);
        lseek(100, -5, SEEK_SET);
        (void)!write(101, std::string(500, 'x').c_str(), 500);
        kill(getpid(), 0);
        ::syscall(SYS_tgkill, getpid(), -1, SIGTERM);
        ::syscall(SYS_fstat, 1000, nullptr);
        ::syscall(400, 1, 2, 3, 4, 5, 100000);
    });
    INFO(log);
    CHECK(log.of("write(101, \"a") == lines{R"(write(101, "a\"b\n\x01", 5) = 5 <exit)"});
    CHECK(log.of("read(100") == lines{R"(read(100, "a\"b\n\x01", 8) = 5 <exit)"});
    CHECK(log.of("openat(AT_FDCWD, \"/none") ==
          lines{R"(openat(AT_FDCWD, "/nonexistent/file", 0x80000, 00) = -1 ENOENT <exit)"});
    CHECK(log.of("mkdir") == lines{R"(mkdir("/nonexistent/directory", 0750) = -1 ENOENT <exit)"});
    CHECK(log.of("lseek") == lines{"lseek(100, -5, 0) = -1 ESPIPE <exit"});
    CHECK(log.of("write(101, \"x") ==
          lines{"write(101, \"" + std::string(32, 'x') + "\"..., 500) = 500 <exit"});
    CHECK(log.of("dup2(").size() == 2);
    CHECK(log.of("dup2(").at(0).ends_with(", 100) = 100 <emulated"));
    CHECK(log.of("tgkill(").at(0).ends_with(", -1, SIGTERM) = -1 EINVAL <emulated"));
    CHECK(log.of("fstat(1000") == lines{"fstat(1000, NULL) = -1 EBADF <exit"});
    CHECK(log.of("syscall_") == lines{"syscall_0x190(1, 2, 3, 4, 5, 0x186a0) = -1 ENOSYS <exit"});
}

TEST_CASE("trace: a bad pointer is the program's EFAULT") {
    lines outcomes;
    const auto log = traced([&] {
        char* pages = static_cast<char*>(mmap(nullptr, 2 * page, PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0));
        munmap(pages + page, page);
        std::fill_n(pages, page, 'z');
        outcomes.push_back(outcome_of("open", [] { return open(at<char>(8), O_RDONLY); }));
        outcomes.push_back(outcome_of("open", [&] { return open(pages + page - 5, O_RDONLY); }));
        outcomes.push_back(outcome_of("chdir", [] { return chdir(at<char>(0)); }));
        outcomes.push_back(outcome_of("write", [] { return write(1, at<char>(8), 5); }));
        outcomes.push_back(outcome_of("getcwd", [] { return ::syscall(SYS_getcwd, 8, 4096); }));
        outcomes.push_back(
            outcome_of("execve", [] { return execve("/bin/sh", at<char*>(8), at<char*>(16)); }));
        outcomes.push_back(outcome_of("high", [] { return chdir(at<char>(0x8000000000000000)); }));
    });
    INFO(log);
    for (const auto& outcome : outcomes) CHECK(outcome.ends_with("=-1 EFAULT"));
    CHECK(log.of("openat(AT_FDCWD, 0x8") ==
          lines{"openat(AT_FDCWD, 0x8, 0, 00) = -1 EFAULT <exit"});
    CHECK(log.of("openat(AT_FDCWD, \"zzzzz\"...") ==
          lines{"openat(AT_FDCWD, \"zzzzz\"..., 0, 00) = -1 EFAULT <exit"});
    CHECK(log.of("chdir(NULL") == lines{"chdir(NULL) = -1 EFAULT <exit"});
    CHECK(log.of("write(1, 0x8") == lines{"write(1, 0x8, 5) = -1 EFAULT <exit"});
    CHECK(log.of("execve").back() == R"(execve("/bin/sh", 0x8, 0x10) = -1 EFAULT <emulated)");
    CHECK(log.of("chdir(0x8") == lines{"chdir(0x8000000000000000) = -1 EFAULT <exit"});
}

TEST_CASE("trace: what is answered inside is logged from there") {
    const auto log = traced([] {
        void* p =
            mmap(nullptr, 5 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        mprotect(p, page, PROT_READ);
        munmap(p, 5 * page);
        munmap(at<char>(3), 5);
    });
    INFO(log);
    CHECK(log.of("mmap(NULL, 20480, 3, 0x22, -1, 0) = 0x").size() == 1);
    CHECK(log.of("mmap(NULL, 20480").at(0).ends_with("<local"));
    CHECK(log.of("mprotect(").at(0).ends_with(", 4096, 1) = 0 <local"));
    CHECK(log.of("munmap(").at(0).ends_with(", 20480) = 0 <local"));
    CHECK(log.of("munmap(0x3, 5) = -1 EINVAL <emulated").size() == 1);
}

TEST_CASE("trace: ids are logged from where they were answered") {
    int right = 0;
    const auto log = traced([&] {
        for (int i = 0; i < 3; i++) {
            right += ::syscall(SYS_getpid) == getpid();
            right += ::syscall(SYS_geteuid) == 0;
        }
        answer_locally(SYS_getpid,
                       [] [[gnu::target("general-regs-only")]] (long, long, long, long, long,
                                                                long) -> long { return 1; });
        right += ::syscall(SYS_getpid) == 1;
        answer_locally(SYS_getpid, nullptr);
        right += ::syscall(SYS_getpid) != 1;
    });
    INFO(log);
    const std::string pid = "getpid() = " + std::to_string(getpid());
    CHECK(right == 8);
    CHECK(log.of(pid + " <emulated").size() == 1);
    CHECK(log.of(pid + " <local").size() >= 3);
    CHECK(log.of("geteuid() = 0 <emulated").size() == 2);
    CHECK(log.of("geteuid() = 0 <local").size() == 1);
}

TEST_CASE("trace: threads and forked processes write whole lines under their own numbers") {
    constexpr unsigned threads = 6, times = 50;
    std::vector<int> ids(threads);
    int child = 0, parent = 0;
    const auto log = traced([&] {
        parent = getpid();
        on_threads(threads, [&](unsigned i) {
            ids[i] = static_cast<int>(::syscall(SYS_gettid));
            for (unsigned n = 0; n < times; n++) ::syscall(SYS_getpgid, 0);
        });
        child = fork();
        if (child == 0) {
            for (unsigned n = 0; n < times; n++) ::syscall(SYS_getpgid, 0);
            _exit(7);
        }
        status_of(child);
    });
    INFO(log);
    const auto count = [&](int id, const std::string& call) {
        const std::string beginning = std::to_string(id) + " " + call;
        return std::ranges::count_if(log.all,
                                     [&](const auto& line) { return line.starts_with(beginning); });
    };
    for (int id : ids) {
        CHECK(count(id, "getpgid(0) = ") == times);
        CHECK(count(id, "exit(0) = ? <emulated>") == 1);
    }
    CHECK(count(child, "getpgid(0) = ") == times);
    CHECK(count(child, "exit_group(7) = ? <emulated>") == 1);
    CHECK(count(parent, "getpid() = " + std::to_string(parent)) >= 1);
    CHECK(log.of("clone").size() == threads + 1);
}

TEST_CASE("trace: a call that a signal interrupts is logged once, when it ends") {
    static int ends[2];
    static std::string second;
    const auto log = traced([] {
        (void)!pipe(ends);
        dup2(ends[0], 100);
        struct sigaction wanted {};
        wanted.sa_handler = [](int) { (void)!write(ends[1], "s", 1); };
        wanted.sa_flags = SA_RESTART;
        sigaction(SIGALRM, &wanted, nullptr);
        const itimerval soon{{0, 0}, {0, 30000}};
        setitimer(ITIMER_REAL, &soon, nullptr);
        char c;
        (void)!read(100, &c, 1);
        // And one that is not made again: until the handler has run.
        wanted.sa_flags = 0;
        sigaction(SIGALRM, &wanted, nullptr);
        const itimerval again{{0, 10000}, {0, 30000}};
        setitimer(ITIMER_REAL, &again, nullptr);
        second = outcome_of("pause", [] { return pause(); });
        const itimerval none{};
        setitimer(ITIMER_REAL, &none, nullptr);
    });
    INFO(log);
    CHECK(log.of("read(100") == lines{"read(100, \"s\", 1) = 1 <exit"});
    CHECK(second == "pause=-1 EINTR");
    CHECK(log.of("pause") == lines{"pause() = -1 EINTR <exit"});
    CHECK(log.of("rt_sigreturn").size() >= 2);
}

TEST_CASE("trace: a reader that goes away ends the log, not the program") {
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    start_traced_cell(ends[1]);
    close(ends[0]);
    CHECK(in_cell([] {
        bool good = true;
        for (int i = 0; i < 5; i++) good = good && ::syscall(SYS_getpgid, 0) > 0;
        void* p = mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        sigset_t pending;
        sigpending(&pending);
        return good && munmap(p, page) == 0 && !sigismember(&pending, SIGPIPE);
    }));
    CHECK(!syscall::tracing());
}

TEST_CASE("trace: a file that may not grow ends nothing") {
    CHECK(in_child([] {
              char name[] = "/tmp/xos-trace-XXXXXX";
              close(mkstemp(name));
              start_traced_cell(open(name, O_WRONLY | O_APPEND));
              unlink(name);
              const rlimit small{100, 100};
              setrlimit(RLIMIT_FSIZE, &small);
              return in_cell([] {
                  int good = 0;
                  for (int i = 0; i < 5; i++) good += ::syscall(SYS_getpgid, 0) > 0;
                  return good;
              });
          }).status == "exit 5");
}

TEST_CASE("the table names the calls that are answered inside") {
    start({.mode = wanted_mode(), .process_arena = std::size_t{1} << 30});
    // Those that are else forwarded only under `xos run`: brk, where no thread is outside, and what
    // event loops read and write, with an option.
    for (unsigned n = 0; n < syscall::table_size; n++) {
        INFO(n);
        CHECK((xos_local_calls[n] != nullptr) ==
              (syscall::lookup(n).handling == syscall::handling::inside_emulate));
    }
}
