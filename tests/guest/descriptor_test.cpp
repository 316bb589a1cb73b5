// libxos's own descriptors are nobody's business: they are not seen, closed or replaced.
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

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

TEST_CASE("closing every descriptor leaves the cell alone") {
    const std::string e = in_cell([] {
        const int pid = fork();
        if (pid == 0) {
            int good = 0;
            for (int fd = 3; fd < 70000; fd += fd < 70 ? 1 : 997) close(fd);
            good += close_range(3, ~0u, 0) == 0;
            good += close_range(5, 3, 0) == -1 && errno == EINVAL;
            good += close_range(3, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
            int ends[2];
            good += pipe(ends) == 0 && ends[0] == 3;
            good += write(ends[1], "x", 1) == 1;
            std::thread([&] { good += getpid() > 0; }).join();
            _exit(good);
        }
        return status_of(pid);
    });
    CHECK(e == "exit 6");
}

TEST_CASE("no descriptor of the cell's can be closed, replaced or looked at") {
    ensure_cell();
    DIR* d = opendir("/proc/self/fd");
    std::vector<int> theirs;
    while (const dirent* e = readdir(d)) {
        char target[256] = {};
        (void)!readlinkat(dirfd(d), e->d_name, target, sizeof target - 1);
        if (std::strstr(target, "kvm")) theirs.push_back(atoi(e->d_name));
    }
    closedir(d);
    CHECK(theirs.size() >= 2);
    const int broken = in_cell([&] {
        int broken = 0;
        for (int fd : theirs) {
            if (close(fd) != -1 || errno != EBADF) broken++;
            if (dup2(0, fd) != -1 || errno != EBADF) broken++;
            if (dup3(0, fd, 0) != -1 || errno != EBADF) broken++;
            if (close_range(static_cast<unsigned>(fd), static_cast<unsigned>(fd), 0) != 0) broken++;
            // The kernel module does not look at arguments.
            if (current_transport() == transport::module) continue;
            struct stat status;
            if (fstat(fd, &status) != -1 || errno != EBADF) broken++;
            if (fcntl(fd, F_GETFD) != -1 || errno != EBADF) broken++;
            if (dup(fd) != -1 || errno != EBADF) broken++;
            if (openat(fd, "x", O_RDONLY) != -1 || errno != EBADF) broken++;
        }
        return broken;
    });
    CHECK(broken == 0);
    CHECK(in_cell([] { return inside(); }));
}

TEST_CASE("close_range may unshare") {
    same([] {
        const int pid = fork();
        if (pid == 0) _exit(close_range(3, ~0u, CLOSE_RANGE_UNSHARE) == 0 && getppid() > 0 ? 0 : 1);
        return status_of(pid);
    });
}

TEST_CASE("libxos's descriptors are in no list, whatever the limit is") {
    const auto probe = [] {
        lines seen;
        for (const char* path : {"/proc/self/fd", "/proc/self/fdinfo", "/proc/thread-self/fd"}) {
            std::string names;
            DIR* d = opendir(path);
            while (const dirent* e = readdir(d)) {
                const int number = std::atoi(e->d_name);
                if (number >= 100) names += std::string(" ") + e->d_name;
            }
            closedir(d);
            seen.push_back(path + names);
        }
        // A buffer for few entries at a time, so that some hold nothing but libxos's.
        const int fd = open("/proc/self/fd", O_RDONLY | O_DIRECTORY);
        unsigned high = 0, calls = 0;
        alignas(8) char buffer[64];
        for (long n; (n = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0; calls++) {
            for (long at = 0; at < n;) {
                const auto* e = reinterpret_cast<const dirent64*>(buffer + at);
                high += std::atoi(e->d_name) >= 100;
                at += e->d_reclen;
            }
        }
        seen.push_back(show("high", high));
        seen.push_back(calls > 1 ? "several calls" : "one call");
        close(fd);
        return seen;
    };
    CHECK(same(probe)[4] == "several calls");
}

TEST_CASE("threads start although the limit of descriptors has been lowered") {
    same([] {
        rlimit before{};
        getrlimit(RLIMIT_NOFILE, &before);
        rlimit low = before;
        low.rlim_cur = 64;
        setrlimit(RLIMIT_NOFILE, &low);
        std::atomic<int> ran = 0;
        on_threads(8, [&](unsigned) { ran++; });
        setrlimit(RLIMIT_NOFILE, &before);
        return show("threads", ran);
    });
}
