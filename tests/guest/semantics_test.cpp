// What runtimes ask of Linux besides files and threads: the answers inside are the answers outside.
#include <fcntl.h>
#include <liburing.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/inotify.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/guest/handlers.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::size_t page = 4096;

bool poll_in(int fd) {
    pollfd p{fd, POLLIN, 0};
    return poll(&p, 1, 0) == 1;
}

sigjmp_buf back;
siginfo_t fault_info;

/// "ok", or the signal that the access raises, with its code and the distance of its address.
std::string touch(volatile char* at, bool write = false) {
    struct sigaction action {
    }, old_segv, old_bus;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
        fault_info = *info;
        siglongjmp(back, 1);
    };
    action.sa_flags = SA_SIGINFO;
    sigaction(SIGSEGV, &action, &old_segv);
    sigaction(SIGBUS, &action, &old_bus);
    std::string answer = "ok";
    if (sigsetjmp(back, 1) == 0) {
        if (write)
            *at = 1;
        else
            (void)*at;
    } else {
        answer = std::to_string(fault_info.si_signo) + " code " +
                 std::to_string(fault_info.si_code) + " at " +
                 std::to_string(static_cast<char*>(fault_info.si_addr) - const_cast<char*>(at));
    }
    sigaction(SIGSEGV, &old_segv, nullptr);
    sigaction(SIGBUS, &old_bus, nullptr);
    return answer;
}

char* map(std::size_t bytes, int protection, int flags, int fd = -1) {
    return static_cast<char*>(mmap(nullptr, bytes, protection, flags, fd, 0));
}

}  // namespace

TEST_CASE("reservations of terabytes are opened and given back in pieces") {
    same([] {
        lines seen;
        constexpr std::size_t reserved = std::size_t{4} << 40;
        char* base = map(reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
        if (base == MAP_FAILED) return lines{"refused"};
        for (std::size_t at : {std::size_t{0}, std::size_t{1} << 30, reserved - page}) {
            seen.push_back(touch(base + at));
            mprotect(base + at, page, PROT_READ);
            seen.push_back(touch(base + at) + ", " + touch(base + at, true));
            mprotect(base + at, page, PROT_READ | PROT_WRITE);
            seen.push_back(touch(base + at, true));
            madvise(base + at, page, MADV_DONTNEED);
            seen.push_back("value " + std::to_string(base[at]));
        }
        char* inside = base + (std::size_t{2} << 40);
        seen.push_back(
            show("fixed", mmap(inside, 16 * page, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == inside));
        seen.push_back(touch(inside, true) + ", " + touch(inside + 16 * page, true));
        munmap(base, reserved);
        seen.push_back(touch(base) + ", " + touch(inside));
        return seen;
    });
}

TEST_CASE("a system call may touch what the program may") {
    ensure_cell();
    // The kernel module does not look at arguments.
    if (current_transport() == transport::module) return;
    same([] {
        lines seen;
        const int read_write = PROT_READ | PROT_WRITE;
        char* p = static_cast<char*>(
            mmap(nullptr, 16 * page, read_write, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        std::memset(p, 'x', 16 * page);
        char* const readable = p + 4 * page;
        char* const closed = p + 8 * page;
        char* const gone = p + 12 * page;
        mprotect(readable, page, PROT_READ);
        mprotect(closed, page, PROT_NONE);
        munmap(gone, page);
        int ends[2];
        (void)!pipe(ends);
        const auto say = [&](const char* what, long result) {
            seen.push_back(std::string(what) + (result < 0 ? ": " + std::string(strerror(errno))
                                                           : ": " + std::to_string(result)));
        };
        const std::pair<const char*, char*> places[] = {
            {"open", p}, {"readable", readable}, {"closed", closed}, {"gone", gone}};
        for (const auto& [name, at] : places) {
            seen.push_back(name);
            (void)!write(ends[1], p + 64, 16);
            say("write", write(ends[1], at, 8));
            say("read", read(ends[0], at + 16, 4));
            say("write nothing", write(ends[1], at, 0));
            say("write to nobody", write(-1, at, 8));
            say("clock", syscall(SYS_clock_gettime, CLOCK_MONOTONIC_COARSE, at) < 0 ? -1 : 0);
            say("path", access(at, R_OK));
            say("stat", syscall(SYS_stat, "/", at) < 0 ? -1 : 0);
            const iovec one{at, 8};
            std::memcpy(p, &one, sizeof one);
            say("vector", at == p ? 0 : writev(ends[1], reinterpret_cast<iovec*>(at), 0));
            while (poll_in(ends[0])) (void)!read(ends[0], p, 64);
        }
        mprotect(closed, page, read_write);
        say("opened again", write(ends[1], closed, 8));
        munmap(p, 12 * page);
        munmap(p + 13 * page, 3 * page);
        close(ends[0]);
        close(ends[1]);
        return seen;
    });
}

TEST_CASE("a file that is truncated under a mapping") {
    same([] {
        lines seen;
        const int fd = memfd_create("truncated", 0);
        for (int kind : {MAP_SHARED, MAP_PRIVATE}) {
            if (ftruncate(fd, 4 * page)) return lines{"no file"};
            char* m = map(4 * page, PROT_READ | PROT_WRITE, kind, fd);
            for (unsigned i = 0; i < 4; i++) seen.push_back(touch(m + i * page));
            if (ftruncate(fd, page + 100)) return lines{"no file"};
            for (unsigned i = 0; i < 4; i++)
                seen.push_back(touch(m + i * page) + ", " + touch(m + i * page + 200, true));
            if (ftruncate(fd, 3 * page)) return lines{"no file"};
            for (unsigned i = 0; i < 4; i++) seen.push_back(touch(m + i * page));
            munmap(m, 4 * page);
        }
        close(fd);
        return seen;
    });
}

TEST_CASE("a mapping that grows down grows down") {
    same([] {
        lines seen;
        constexpr std::size_t room = 512 * page;
        char* m = map(room + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS);
        munmap(m, room);  // and above it nothing may be touched
        char* top = static_cast<char*>(mmap(m + room - page, page, PROT_READ | PROT_WRITE,
                                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED,
                                            -1, 0));
        for (std::size_t below = 0; below < 16; below++)
            seen.push_back(touch(top - below * page, true));
        seen.push_back(touch(top + page));
        munmap(top - 16 * page, 18 * page);
        return seen;
    });
}

TEST_CASE("shared memory segments are attached and detached") {
    same([] {
        lines seen;
        const int id = shmget(IPC_PRIVATE, 3 * page, IPC_CREAT | 0600);
        auto* a = static_cast<char*>(shmat(id, nullptr, 0));
        auto* b = static_cast<char*>(shmat(id, nullptr, SHM_RDONLY));
        a[page] = 42;
        seen.push_back(show("seen", b[page]));
        seen.push_back(touch(b, true));
        const int pid = fork();
        if (pid == 0) {
            a[page] = 43;
            _exit(shmdt(b) == 0 ? touch(b) == "ok" : 2);
        }
        seen.push_back(status_of(pid));
        seen.push_back(show("seen", b[page]));
        shmdt(a);
        seen.push_back(touch(a));
        shmctl(id, IPC_RMID, nullptr);
        shmdt(b);
        return seen;
    });
}

TEST_CASE("what Linux is told about memory ends with the mapping") {
    same([] {
        lines seen;
        const auto kilobytes = [](const char* what) {
            std::ifstream status("/proc/self/status");
            for (std::string line; std::getline(status, line);)
                if (line.starts_with(what)) return line;
            return std::string("nothing");
        };
        const auto fresh = [](int protection = PROT_READ | PROT_WRITE) {
            return static_cast<char*>(
                mmap(nullptr, 64 * page, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        };
        for (int i = 0; i < 3; i++) {
            char* at = fresh();
            at[5 * page] = 1;
            seen.push_back(outcome_of("mlock", [&] { return mlock(at + 100, 32 * page); }));
            seen.push_back(kilobytes("VmLck"));
            seen.push_back(outcome_of("discard", [&] { return madvise(at, page, MADV_DONTNEED); }));
            seen.push_back(show("kept", at[5 * page]));
            munmap(at, 64 * page);
            seen.push_back(kilobytes("VmLck"));
        }
        for (int advice : {MADV_NORMAL, MADV_RANDOM, MADV_SEQUENTIAL, MADV_DONTFORK, MADV_DOFORK,
                           MADV_MERGEABLE, MADV_UNMERGEABLE, MADV_DONTDUMP, MADV_DODUMP,
                           MADV_WIPEONFORK, MADV_KEEPONFORK, MADV_NOHUGEPAGE, MADV_COLD}) {
            char* at = fresh(PROT_READ);
            seen.push_back(outcome_of("advice", [&] { return madvise(at, 16 * page, advice); }));
            seen.push_back(touch(at, true));
            mprotect(at, 64 * page, PROT_READ | PROT_WRITE);
            seen.push_back(touch(at + 20 * page, true));
            munmap(at + 8 * page, page);
            seen.push_back(outcome_of("hole", [&] { return madvise(at, 16 * page, advice); }));
            munmap(at, 64 * page);
        }
        // Pages that had much said about them are as good as any others, also in a forked process.
        const int pid = fork();
        if (pid == 0) {
            const auto touched = [] {
                void* at = mmap(nullptr, 256 * page, PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                memset(at, 5, 256 * page);
                return static_cast<char*>(at);
            };
            for (int i = 0; i < 4; i++) {
                char* at = touched();
                madvise(at + 64 * page, 64 * page, MADV_DONTFORK);
                munmap(at, 256 * page);
            }
            char* at = touched();
            madvise(at, 256 * page, MADV_DONTFORK);
            auto* there = reinterpret_cast<char*>(syscall(SYS_mremap, at, 256 * page, 256 * page,
                                                          MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0));
            if (there == MAP_FAILED) _exit(errno);
            _exit(at[70 * page] == 0 && there[70 * page] == 5 && there[200 * page] == 5 ? 42 : 1);
        }
        seen.push_back(status_of(pid));
        char* at = fresh();
        madvise(at, 64 * page, MADV_DONTFORK);
        const auto moved = [&](int flags) {
            return syscall(SYS_mremap, at, 64 * page, 64 * page, MREMAP_MAYMOVE | flags, 0) == -1;
        };
        at[page] = 7;
        seen.push_back(outcome_of("no move", [&] { return moved(0); }));
        seen.push_back(show("kept", at[page]));
        seen.push_back(outcome_of("move", [&] { return moved(MREMAP_DONTUNMAP); }));
        seen.push_back(outcome_of("no memory", [&] { return mlock(at - (1l << 40), page); }));
        seen.push_back(outcome_of("bad flags", [&] { return mlock2(at, page, 64); }));
        seen.push_back(outcome_of("bad flags", [] { return mlockall(64); }));
        return seen;
    });
}

TEST_CASE("a process has the threads that it has made and no others") {
    const auto count = [] {
        const std::filesystem::directory_iterator tasks("/proc/self/task");
        return static_cast<int>(std::distance(begin(tasks), end(tasks)));
    };
    const lines seen = same([count] {
        lines all{show("at first", count())};
        const int pid = fork();
        if (pid == 0) {
            for (int i = 0; i < 1000; i++) getppid();  // long enough for a VM of its own
            _exit(count());
        }
        all.push_back(status_of(pid));
        on_threads(3, [](unsigned) { getppid(); });
        // One that is joined may still be on its way out.
        all.push_back(show("alone again", eventually([count] { return count() == 1; })));
        return all;
    });
    CHECK(seen == lines{"at first=1", "exit 1", "alone again=1"});
}

TEST_CASE("a process of one thread has namespaces of its own") {
    same([] {
        lines seen;
        static thread_local int local;
        local = 6;
        volatile double kept = 1.5;
        const int pid = fork();
        if (pid == 0) {
            for (int i = 0; i < 1000; i++) getppid();  // long enough for a VM of its own
            if (unshare(CLONE_NEWUSER | CLONE_NEWUTS) != 0) _exit(100 + errno);
            const int map = open("/proc/self/uid_map", O_WRONLY);
            if (write(map, "7 0 1", 5) != 5) _exit(2);
            if (getuid() != 7 || local != 6 || kept != 1.5) _exit(3);
            if (sethostname("inside", 6) != 0 || unshare(-1) != -1 || errno != EINVAL) _exit(4);
            const int grandchild = fork();
            if (grandchild == 0) _exit(getuid() == 7 ? 0 : 1);
            int status = 0;
            if (waitpid(grandchild, &status, 0) != grandchild || status != 0) _exit(5);
            std::thread other([] { local = 1; });
            other.join();
            _exit(local == 6 ? 42 : 6);
        }
        seen.push_back(status_of(pid));
        std::atomic<bool> end{false};
        std::thread other([&] { end.wait(false); });
        seen.push_back(outcome_of("two threads", [] { return unshare(CLONE_NEWUSER); }));
        end = true;
        end.notify_all();
        other.join();
        return seen;
    });
}

TEST_CASE("signals that are waited for and not handled") {
    same([] {
        lines seen;
        sigset_t set = set_of({SIGUSR1});
        sigaddset(&set, SIGRTMIN + 4);
        sigset_t old;
        pthread_sigmask(SIG_BLOCK, &set, &old);
        siginfo_t info{};
        timespec moment{0, 1000000};
        seen.push_back(outcome_of("none", [&] { return sigtimedwait(&set, &info, &moment); }));
        for (int i = 0; i < 3; i++) {
            sigval v;
            v.sival_int = i;
            pthread_sigqueue(pthread_self(), SIGRTMIN + 4, v);
        }
        pthread_kill(pthread_self(), SIGUSR1);
        for (int i = 0; i < 2; i++) {
            const int signal = sigwaitinfo(&set, &info);
            seen.push_back(std::to_string(signal) + " code " + std::to_string(info.si_code) + " " +
                           std::to_string(signal > 31 ? info.si_value.sival_int : 0));
        }
        const int fd = signalfd(-1, &set, SFD_NONBLOCK);
        signalfd_siginfo from[4] = {};
        const auto bytes = read(fd, from, sizeof from);
        seen.push_back(show("bytes", bytes / static_cast<long>(sizeof from[0])) + " " +
                       std::to_string(from[0].ssi_int) + std::to_string(from[1].ssi_int));
        seen.push_back(outcome_of("empty", [&] { return read(fd, from, sizeof from); }));
        std::thread sender([main = pthread_self()] { pthread_kill(main, SIGUSR1); });
        seen.push_back(show("waited", sigwaitinfo(&set, &info)));
        sender.join();
        close(fd);
        pthread_sigmask(SIG_SETMASK, &old, nullptr);
        return seen;
    });
}

TEST_CASE("barriers, robust lists and thread addresses") {
    same([] {
        lines seen;
        seen.push_back(show("query", syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0)));
        seen.push_back(show(
            "register", syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0)));
        seen.push_back(
            show("expedited", syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)));
        pthread_mutexattr_t attributes;
        pthread_mutexattr_init(&attributes);
        pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
        pthread_mutex_t mutex;
        pthread_mutex_init(&mutex, &attributes);
        std::thread([&] { pthread_mutex_lock(&mutex); }).join();
        seen.push_back(show("left", pthread_mutex_lock(&mutex)));
        seen.push_back(show("consistent", pthread_mutex_consistent(&mutex)));
        pthread_mutex_unlock(&mutex);
        std::atomic<int> word{1};
        std::thread([&] {
            syscall(SYS_set_tid_address, &word);
            syscall(SYS_exit, 0);
        }).detach();
        seen.push_back(show("cleared", eventually([&] { return word == 0; })));
        return seen;
    });
}

TEST_CASE("a process changes what it is called and how it is seen") {
    same([] {
        lines seen;
        const int pid = fork();
        if (pid != 0) return lines{status_of(pid)};
        char name[16] = {};
        int n = 0;
        n += prctl(PR_SET_NAME, "renamed") == 0 && prctl(PR_GET_NAME, name) == 0 &&
             strcmp(name, "renamed") == 0;
        n += prctl(PR_SET_PDEATHSIG, SIGUSR2) == 0;
        n += prctl(PR_SET_DUMPABLE, 0) == 0 && prctl(PR_GET_DUMPABLE) == 0;
        n += prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0;
        n += prctl(PR_SET_CHILD_SUBREAPER, 1) == 0;
        n += personality(ADDR_NO_RANDOMIZE) >= 0 && personality(0xffffffff) == ADDR_NO_RANDOMIZE;
        const int again = fork();
        if (again == 0) _exit(personality(0xffffffff) == ADDR_NO_RANDOMIZE ? 9 : 8);
        int status = 0;
        waitpid(again, &status, 0);
        _exit(n * 10 + WEXITSTATUS(status));
    });
}

TEST_CASE("a parent traces its child") {
    same([] {
        lines seen;
        static volatile long secret;
        secret = 1;
        const int pid = fork();
        if (pid == 0) {
            ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
            raise(SIGSTOP);
            _exit(static_cast<int>(secret));
        }
        int status = 0;
        waitpid(pid, &status, 0);
        seen.push_back(describe(status));
        seen.push_back(show("peek", ptrace(PTRACE_PEEKDATA, pid, &secret, nullptr)));
        ptrace(PTRACE_POKEDATA, pid, &secret, 77);
        user_regs_struct registers{};
        seen.push_back(show("registers", ptrace(PTRACE_GETREGS, pid, nullptr, &registers)));
        ptrace(PTRACE_CONT, pid, nullptr, nullptr);
        seen.push_back(status_of(pid));
        return seen;
    });
}

TEST_CASE("a directory is watched") {
    same([] {
        lines seen;
        char folder[] = "/tmp/xos-watch-XXXXXX";
        if (!mkdtemp(folder)) return lines{"no folder"};
        const int watch = inotify_init1(0);
        inotify_add_watch(watch, folder, IN_CREATE | IN_CLOSE_WRITE | IN_DELETE);
        const std::string file = std::string(folder) + "/file";
        close(open(file.c_str(), O_CREAT | O_WRONLY, 0600));
        unlink(file.c_str());
        alignas(8) char events[1024];
        const auto bytes = read(watch, events, sizeof events);
        for (long at = 0; at < bytes;) {
            const auto* event = reinterpret_cast<const inotify_event*>(events + at);
            seen.push_back(std::to_string(event->mask) + " " + event->name);
            at += static_cast<long>(sizeof *event + event->len);
        }
        rmdir(folder);
        close(watch);
        return seen;
    });
}

TEST_CASE("a program has an io_uring of its own") {
    same([] {
        io_uring ring;
        if (const int r = io_uring_queue_init(8, &ring, 0); r < 0)
            return lines{"refused " + std::to_string(-r)};
        lines seen;
        int ends[2];
        if (pipe(ends)) return lines{"no pipe"};
        char text[8] = {};
        io_uring_sqe* sqe = io_uring_get_sqe(&ring);
        io_uring_prep_read(sqe, ends[0], text, sizeof text, 0);
        sqe->user_data = 1;
        sqe = io_uring_get_sqe(&ring);
        io_uring_prep_write(sqe, ends[1], "through", 7, 0);
        sqe->user_data = 2;
        seen.push_back(show("submitted", io_uring_submit_and_wait(&ring, 2)));
        long sum = 0;
        for (int i = 0; i < 2; i++) {
            io_uring_cqe* cqe = nullptr;
            io_uring_wait_cqe(&ring, &cqe);
            sum += static_cast<long>(cqe->user_data) * 100 + cqe->res;
            io_uring_cqe_seen(&ring, cqe);
        }
        seen.push_back(show(text, sum));
        io_uring_queue_exit(&ring);
        close(ends[0]);
        close(ends[1]);
        return seen;
    });
}
