// System calls answer inside as outside.
#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <xos/stats.hpp>
#include <xos/syscall.hpp>

#include "tests/guest/machine_state.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

/// Collects "name=value errno".
class record {
  public:
    template <class Call>
    void operator()(const char* name, Call call) {
        all_.push_back(outcome_of(name, call));
    }
    void note(std::string text) { all_.push_back(std::move(text)); }
    lines take() { return std::move(all_); }

  private:
    lines all_;
};

/// Opaque to the compiler, which would warn.
template <class T>
T* bad_pointer() {
    static volatile std::uintptr_t address = 8;
    return reinterpret_cast<T*>(address);
}

std::string directory() {
    char name[] = "/tmp/xos-guest-XXXXXX";
    return mkdtemp(name);
}

}  // namespace

TEST_CASE("calls on files answer the same") {
    const auto natively = same([] {
        record call;
        const std::string dir = directory();
        const std::string file = dir + "/file", other = dir + "/other";
        char text[64] = {};
        struct stat st {};
        struct statfs fs {};
        int fd = -1;
        call("openat",
             [&] { return fd = openat(AT_FDCWD, file.c_str(), O_RDWR | O_CREAT | O_EXCL, 0640); });
        call("open again", [&] { return open(file.c_str(), O_CREAT | O_EXCL, 0640); });
        call("open nothing", [&] { return open("/nonexistent", O_RDONLY); });
        call("open bad pointer", [&] { return open(bad_pointer<char>(), O_RDONLY); });
        call("write", [&] { return write(fd, "hello world", 11); });
        call("write bad pointer", [&] { return write(fd, bad_pointer<char>(), 11); });
        call("write bad fd", [&] { return write(-1, "x", 1); });
        call("pread", [&] { return pread(fd, text, 5, 6); });
        call.note(text);
        call("read bad pointer", [&] { return pread(fd, bad_pointer<char>(), 5, 0); });
        call("lseek", [&] { return lseek(fd, -3, SEEK_END); });
        call("lseek bad", [&] { return lseek(fd, -300, SEEK_END); });
        const iovec parts[] = {{text, 2}, {text + 10, 2}};
        call("readv", [&] { return readv(fd, parts, 2); });
        call("writev", [&] { return writev(fd, parts, 2); });
        call("writev bad", [&] { return writev(fd, bad_pointer<iovec>(), 2); });
        call("preadv2", [&] { return preadv2(fd, parts, 2, 0, 0); });
        call("pwritev", [&] { return pwritev(fd, parts, 2, 100); });
        call("fstat", [&] { return fstat(fd, &st); });
        call.note(show("size", st.st_size) + show(" mode", st.st_mode));
        call("fstat bad", [&] { return syscall(SYS_fstat, fd, 8); });
        call("stat", [&] { return stat(dir.c_str(), &st); });
        call("statx", [&] {
            struct statx x;
            return statx(AT_FDCWD, file.c_str(), 0, STATX_SIZE, &x) == 0
                       ? static_cast<long>(x.stx_size)
                       : -1;
        });
        call("fstatfs", [&] { return fstatfs(fd, &fs); });
        call("access", [&] { return access(file.c_str(), R_OK); });
        call("faccessat", [&] { return faccessat(AT_FDCWD, other.c_str(), R_OK, 0); });
        call("fchmod", [&] { return fchmod(fd, 0600); });
        call("fchown", [&] { return fchown(fd, getuid(), getgid()); });
        call("ftruncate", [&] { return ftruncate(fd, 4096); });
        call("fallocate", [&] { return fallocate(fd, 0, 0, 8192); });
        call("fsync", [&] { return fsync(fd); });
        call("flock", [&] { return flock(fd, LOCK_EX); });
        call("fcntl", [&] { return fcntl(fd, F_GETFL); });
        call("fcntl bad", [&] { return fcntl(fd, 9999); });
        call("ioctl", [&] { return ioctl(fd, TCGETS, text); });
        call("dup", [&] {
            const int d = dup(fd);
            close(d);
            return d - fd;
        });
        call("dup2", [&] {
            const int d = dup2(fd, 100);
            close(d);
            return d;
        });
        call("dup2 bad", [&] { return dup2(-1, 100); });
        call("dup3 same", [&] { return dup3(fd, fd, 0); });
        call("rename", [&] { return rename(file.c_str(), other.c_str()); });
        call("link", [&] { return link(other.c_str(), file.c_str()); });
        call("symlink", [&] { return symlink("target", (dir + "/soft").c_str()); });
        call("readlink", [&] { return readlink((dir + "/soft").c_str(), text, sizeof text); });
        call("mkdirat", [&] { return mkdir((dir + "/sub").c_str(), 0700); });
        call("unlink dir", [&] { return unlink((dir + "/sub").c_str()); });
        call("getdents64", [&] {
            const int d = open(dir.c_str(), O_RDONLY | O_DIRECTORY);
            alignas(8) char entries[1024];
            const long n = syscall(SYS_getdents64, d, entries, sizeof entries);
            close(d);
            return n;
        });
        call("utimensat", [&] { return utimensat(AT_FDCWD, other.c_str(), nullptr, 0); });
        call("copy_file_range", [&] {
            loff_t from = 0, to = 8192;
            return copy_file_range(fd, &from, fd, &to, 100, 0);
        });
        call("sendfile", [&] {
            int ends[2];
            if (pipe(ends)) return -2L;
            const long n = syscall(SYS_sendfile, ends[1], fd, nullptr, 10);
            close(ends[0]);
            close(ends[1]);
            return n;
        });
        call("close", [&] { return close(fd); });
        call("close again", [&] { return close(fd); });
        for (const char* name : {"/file", "/other", "/soft"}) unlink((dir + name).c_str());
        rmdir((dir + "/sub").c_str());
        call("rmdir", [&] { return rmdir(dir.c_str()); });
        return call.take();
    });
    CHECK(natively.size() > 50);
}

TEST_CASE("calls on pipes and sockets and events answer the same") {
    same([] {
        record call;
        int ends[2], pair[2];
        char text[64] = {};
        call("pipe2", [&] { return pipe2(ends, O_CLOEXEC | O_NONBLOCK); });
        call("pipe bad", [&] { return syscall(SYS_pipe, 8); });
        call("read empty", [&] { return read(ends[0], text, 10); });
        call("write", [&] { return write(ends[1], "abc", 3); });
        call("FIONREAD", [&] {
            int n = 0;
            ioctl(ends[0], FIONREAD, &n);
            return n;
        });
        pollfd p{ends[0], POLLIN, 0};
        call("poll", [&] { return poll(&p, 1, 0); });
        call("poll bad", [&] { return syscall(SYS_poll, 8, 1, 0); });
        call("ppoll", [&] {
            const timespec none{};
            return ppoll(&p, 1, &none, nullptr);
        });
        call("select", [&] {
            fd_set s;
            FD_ZERO(&s);
            FD_SET(ends[0], &s);
            timeval none{};
            return select(ends[0] + 1, &s, nullptr, nullptr, &none);
        });
        call("epoll", [&] {
            const int e = epoll_create1(0);
            epoll_event event{EPOLLIN, {.u64 = 77}}, got{};
            epoll_ctl(e, EPOLL_CTL_ADD, ends[0], &event);
            const int n = epoll_wait(e, &got, 1, 0);
            close(e);
            return n * 1000 + static_cast<int>(got.data.u64);
        });
        call("epoll_ctl bad", [&] { return epoll_ctl(ends[0], EPOLL_CTL_ADD, ends[1], nullptr); });
        call("tee", [&] { return tee(ends[0], ends[1], 1, SPLICE_F_NONBLOCK); });
        call("socketpair", [&] { return socketpair(AF_UNIX, SOCK_STREAM, 0, pair); });
        call("sendto", [&] { return sendto(pair[0], "hello", 5, MSG_NOSIGNAL, nullptr, 0); });
        call("recvfrom", [&] {
            return recvfrom(pair[1], text, 10, MSG_DONTWAIT | MSG_PEEK, nullptr, nullptr);
        });
        iovec part{text, sizeof text};
        msghdr message{};
        message.msg_iov = &part;
        message.msg_iovlen = 1;
        call("recvmsg", [&] { return recvmsg(pair[1], &message, MSG_DONTWAIT); });
        call("recvmsg bad", [&] { return syscall(SYS_recvmsg, pair[1], 8, 0); });
        call("sendmsg with a descriptor", [&] {
            alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
            message.msg_control = control;
            message.msg_controllen = sizeof control;
            part.iov_len = 1;
            cmsghdr* c = CMSG_FIRSTHDR(&message);
            *c = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
            std::memcpy(CMSG_DATA(c), &ends[0], sizeof(int));
            const long sent = sendmsg(pair[0], &message, 0),
                       received = recvmsg(pair[1], &message, MSG_DONTWAIT);
            int passed = -1;
            std::memcpy(&passed, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(int));
            char first = 0;
            const long r = read(passed, &first, 1);
            close(passed);
            return sent * 10000 + received * 1000 + r * 100 + first;
        });
        call("getsockopt", [&] {
            int type = 0;
            socklen_t n = sizeof type;
            getsockopt(pair[0], SOL_SOCKET, SO_TYPE, &type, &n);
            return type;
        });
        call("getsockname", [&] {
            sockaddr_un a;
            socklen_t n = sizeof a;
            return getsockname(pair[0], reinterpret_cast<sockaddr*>(&a), &n);
        });
        call("shutdown", [&] { return shutdown(pair[0], SHUT_WR); });
        call("accept", [&] { return accept(pair[0], nullptr, nullptr); });
        call("connect bad", [&] { return connect(pair[0], nullptr, 0); });
        call("bind loopback", [&] {
            const int s = socket(AF_INET, SOCK_STREAM, 0);
            sockaddr_in a{AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {}};
            const int r = bind(s, reinterpret_cast<sockaddr*>(&a), sizeof a) * 10 + listen(s, 5);
            close(s);
            return r;
        });
        call("eventfd", [&] {
            const int e = eventfd(5, EFD_NONBLOCK);
            std::uint64_t v = 0;
            (void)!read(e, &v, 8);
            const long again = read(e, &v, 8);
            close(e);
            return static_cast<long>(v) * 10 + again;
        });
        call("timerfd", [&] {
            const int t = timerfd_create(CLOCK_MONOTONIC, 0);
            const itimerspec soon{{}, {0, 1000000}};
            timerfd_settime(t, 0, &soon, nullptr);
            std::uint64_t v = 0;
            (void)!read(t, &v, 8);
            close(t);
            return static_cast<long>(v);
        });
        call("signalfd", [&] {
            sigset_t s;
            sigemptyset(&s);
            sigaddset(&s, SIGUSR2);
            sigprocmask(SIG_BLOCK, &s, nullptr);
            const int f = signalfd(-1, &s, SFD_NONBLOCK);
            raise(SIGUSR2);
            signalfd_siginfo i{};
            (void)!read(f, &i, sizeof i);
            close(f);
            sigprocmask(SIG_UNBLOCK, &s, nullptr);
            return i.ssi_signo;
        });
        call("inotify_init", [&] {
            const int i = inotify_init1(0);
            const int w = inotify_add_watch(i, "/tmp", IN_CREATE);
            close(i);
            return w;
        });
        call("memfd_create", [&] {
            const int m = memfd_create("name", 0);
            const long r = ftruncate(m, 4096);
            close(m);
            return r;
        });
        for (int fd : {ends[0], ends[1], pair[0], pair[1]}) close(fd);
        return call.take();
    });
}

TEST_CASE("calls on the process and the system answer the same") {
    same([] {
        record call;
        call("getpid", [] { return syscall(SYS_getpid); });
        call("gettid", [] { return syscall(SYS_gettid); });
        call("getppid", [] { return getppid(); });
        call("getuid", [] { return getuid(); });
        call("getpgid", [] { return getpgid(0) == getpid(); });
        call("getsid", [] { return getsid(0); });
        call("getpriority", [] { return getpriority(PRIO_PROCESS, 0); });
        call("getrlimit", [] {
            rlimit r{};
            getrlimit(RLIMIT_STACK, &r);
            return static_cast<long>(r.rlim_cur);
        });
        call("prlimit bad", [] { return syscall(SYS_prlimit64, 0, 999, nullptr, nullptr); });
        call("getrusage", [] {
            rusage u;
            return getrusage(RUSAGE_SELF, &u);
        });
        call("times", [] {
            tms t;
            return times(&t) > 0;
        });
        call("uname", [] {
            utsname u;
            return uname(&u);
        });
        call("uname bad", [] { return syscall(SYS_uname, 8); });
        call("sysinfo", [] {
            struct sysinfo s;
            return sysinfo(&s);
        });
        call("prctl name", [] {
            char name[16] = {};
            prctl(PR_SET_NAME, "probe");
            prctl(PR_GET_NAME, name);
            return std::strcmp(name, "probe");
        });
        call("prctl bad", [] { return prctl(987654); });
        call("sched_yield", [] { return sched_yield(); });
        call("sched_getaffinity", [] {
            cpu_set_t s;
            return sched_getaffinity(0, sizeof s, &s);
        });
        call("sched_getscheduler", [] { return sched_getscheduler(0); });
        call("clock_gettime bad", [] {
            timespec t;
            return syscall(SYS_clock_gettime, 99, &t);
        });
        call("clock_gettime bad pointer", [] { return syscall(SYS_clock_gettime, 1, 8); });
        call("clock_getres", [] {
            timespec t;
            clock_getres(CLOCK_MONOTONIC, &t);
            return t.tv_nsec;
        });
        call("getrandom", [] {
            char b[16];
            return syscall(SYS_getrandom, b, 16, 0);
        });
        call("getrandom bad", [] { return syscall(SYS_getrandom, 8, 16, 0); });
        call("kill 0", [] { return kill(getpid(), 0); });
        call("kill bad", [] { return kill(getpid(), 99); });
        call("tgkill bad", [] { return syscall(SYS_tgkill, -1, -1, 0); });
        call("wait4 without children", [] { return syscall(SYS_wait4, -1, nullptr, 0, nullptr); });
        call("umask", [] { return umask(umask(022)); });
        call("getcwd", [] {
            char b[512];
            return syscall(SYS_getcwd, b, sizeof b);
        });
        call("getcwd short", [] {
            char b[1];
            return syscall(SYS_getcwd, b, sizeof b);
        });
        call("chdir bad", [] { return chdir("/nonexistent"); });
        call("futex wake", [] {
            int word = 0;
            return syscall(SYS_futex, &word, 1, 1, nullptr, nullptr, 0);
        });
        call("futex wait mismatch", [] {
            int word = 0;
            return syscall(SYS_futex, &word, 0, 1, nullptr, nullptr, 0);
        });
        call("futex bad", [] { return syscall(SYS_futex, 8, 0, 1, nullptr, nullptr, 0); });
        call("set_robust_list bad", [] { return syscall(SYS_set_robust_list, nullptr, 1); });
        call("membarrier", [] { return syscall(SYS_membarrier, 0, 0, 0) > 0; });
        call("personality", [] { return syscall(SYS_personality, 0xffffffff); });
        call("nanosleep bad", [] {
            const timespec t{0, 2'000'000'000};
            return nanosleep(&t, nullptr);
        });
        call("arch_prctl get fs", [] {
            unsigned long fs = 0;
            syscall(SYS_arch_prctl, 0x1003, &fs);
            return fs == *reinterpret_cast<unsigned long*>(pthread_self());
        });
        call("arch_prctl bad pointer", [] { return syscall(SYS_arch_prctl, 0x1003, 8); });
        call("arch_prctl bad", [] { return syscall(SYS_arch_prctl, 0x9999, 0); });
        call("clone3 bad size", [] { return syscall(SYS_clone3, nullptr, 1); });
        call("clone3 bad pointer", [] { return syscall(SYS_clone3, 8, 64); });
        call("execve nothing", [] {
            char* none[] = {nullptr};
            return execve("/nonexistent", none, none);
        });
        call("execve bad", [] { return syscall(SYS_execve, 8, nullptr, nullptr); });
        return call.take();
    });
}

TEST_CASE("memory calls with six arguments and errors answer the same") {
    same([] {
        record call;
        const int fd = memfd_create("pages", 0);
        (void)!ftruncate(fd, 3 * 4096);
        (void)!pwrite(fd, "third", 5, 2 * 4096);
        char* page = nullptr;
        call("mmap", [&] {
            page = static_cast<char*>(mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 2 * 4096));
            return page[0];
        });
        call("mmap bad offset", [&] {
            return mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, fd, 5) == MAP_FAILED ? -1 : 0;
        });
        call("mmap bad fd", [&] {
            return mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, 999, 0) == MAP_FAILED ? -1 : 0;
        });
        call("mmap huge", [&] {
            return mmap(nullptr, std::size_t{1} << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                        0) == MAP_FAILED
                       ? -1
                       : 0;
        });
        call("mmap no replace", [&] {
            return mmap(page, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
                        -1, 0) == MAP_FAILED
                       ? -1
                       : 0;
        });
        call("mprotect bad", [&] { return mprotect(page + 1, 4096, PROT_READ); });
        call("madvise bad", [&] { return madvise(page, 4096, 9999); });
        call("mincore", [&] {
            unsigned char v;
            return mincore(page, 4096, &v);
        });
        call("msync", [&] { return msync(page, 4096, MS_SYNC); });
        call("mlock", [&] { return mlock(page, 4096) * 10 + munlock(page, 4096); });
        call("munmap", [&] { return munmap(page, 4096); });
        call("munmap bad", [&] { return munmap(page + 1, 4096); });
        call("mremap bad", [&] { return mremap(page, 4096, 8192, 0) == MAP_FAILED ? -1 : 0; });
        call("brk", [&] { return syscall(SYS_brk, 0) == reinterpret_cast<long>(sbrk(0)); });
        call("process_vm_readv", [&] {
            int a = 5, b = 0;
            iovec l{&b, 4}, r{&a, 4};
            return syscall(SYS_process_vm_readv, getpid(), &l, 1, &r, 1, 0) * 10 + b;
        });
        close(fd);
        return call.take();
    });
}

TEST_CASE("unknown numbers answer ENOSYS") {
    const auto native = same([] {
        record call;
        for (long number : {400L, 511L, 512L, 999L, 100000L, 0x40000000L + 39, 0x7fffffffL, -1L,
                            -4096L, 0x1'0000'0027L, 0x584f'5310L, 0x584f'53ffL}) {
            call(std::to_string(number).c_str(),
                 [number] { return syscall(number, 1, 2, 3, 4, 5, 6); });
        }
        return call.take();
    });
    CHECK(native[3] == "999=-1 ENOSYS");
}

TEST_CASE("the upper half of a call's number does not count") {
    same([] {
        constexpr long upper = 0x7fff'0000'0000'0000;
        const auto pid = static_cast<int>(syscall(upper | SYS_fork));
        if (pid == 0) _exit(static_cast<int>(syscall(upper | SYS_getppid)) == getppid() ? 3 : 4);
        return status_of(pid);
    });
}

TEST_CASE("the gateway's unused numbers are unknown calls") {
    const auto native =
        same([] { return outcome_of("gateway", [] { return syscall(0x584f'530f, 0, 0, 0); }); });
    CHECK(native == "gateway=-1 ENOSYS");
}

TEST_CASE("a system call keeps every register but three") {
    if (!__builtin_cpu_supports("avx")) return;
    same([] {
        lines all;
        constexpr unsigned result_rcx_r11 = 1 | 1 << 2 | 1 << 10;
        for (std::uint64_t number :
             {std::uint64_t{SYS_getppid}, std::uint64_t{999}, std::uint64_t{100000},
              std::uint64_t{SYS_close}, std::uint64_t{SYS_rt_sigaction},
              std::uint64_t{SYS_sigaltstack}}) {
            machine_state s = distinct_state();
            s.gpr[0] = number;
            s.gpr[5] = ~std::uint64_t{0};
            s.gpr[4] = 0;
            const machine_state after = registers_after(event::syscall, s);
            all.push_back(difference(s, after, result_rcx_r11) +
                          show("rax", static_cast<long>(after.gpr[0])));
            // RCX is where it returned to and R11 the flags, as the instruction defines.
            all.push_back(show("r11", static_cast<long>((after.gpr[10] | 512) == (s.flags | 512))) +
                          (after.gpr[2] ? " rcx" : ""));
        }
        return all;
    });
}

TEST_CASE("the direction flag survives a system call") {
    same([] {
        std::uint64_t flags;
        asm volatile("std\n movl $110, %%eax\n syscall\n pushfq\n popq %0\n cld"
                     : "=r"(flags)
                     :
                     : "rax", "rcx", "r11", "memory", "cc");
        return flags & 0x400;
    });
}

TEST_CASE("a call answered locally makes no exit and can be given back") {
    ensure_cell();
    static const local_call answer = [] [[gnu::target("general-regs-only")]] (
                                         long a, long b, long c, long d, long e, long f) -> long {
        return a + 2 * b + 3 * c + 4 * d + 5 * e + 6 * f;
    };
    const auto ask = [] { return syscall(SYS_getpgid, 1, 10, 100, 1000, 10000, 100000); };
    const long before = in_cell(ask), before_errno = errno;
    answer_locally(SYS_getpgid, answer);
    const auto with = in_cell([&] {
        const auto exits = thread_exits();
        const long r = ask();
        return std::pair(r, thread_exits() - exits);
    });
    const std::string kept = in_cell([] {
        machine_state s = distinct_state();
        s.gpr[0] = SYS_getpgid;
        return difference(s, registers_after(event::syscall, s), 1 | 1 << 2 | 1 << 10);
    });
    const long outside = ask();
    answer_locally(SYS_getpgid, nullptr);
    const long after = in_cell(ask);
    CHECK(with == std::pair<long, std::uint64_t>(654321, 0));
    CHECK(kept == "");
    CHECK(outside != 654321);
    CHECK(after == before);
    (void)before_errno;
}

TEST_CASE("a local answer may be an error") {
    answer_locally(SYS_getpgid,
                   [] [[gnu::target("general-regs-only")]] (long, long, long, long, long,
                                                            long) -> long { return -EDOM; });
    CHECK(in_cell([] { return outcome_of("getpgid", [] { return getpgid(0); }); }) ==
          "getpgid=-1 EDOM");
}
