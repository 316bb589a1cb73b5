// Wrong descriptors, wrong processes, wrong order: all refused, nothing left behind.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/guest/support.hpp"
#include "tests/kmod/machine.hpp"

namespace xos::test {

namespace {

using why = returned::why;

template <class Call>
int errno_of_call(Call c) {
    return c() == -1 ? errno : 0;
}

}  // namespace

TEST_CASE("attaching what is no VM is refused") {
    machine m(1, machine::attachment::none), other;
    CHECK(errno_of_call([&] { return m.attach(-1); }) == EBADF);
    CHECK(errno_of_call([&] { return m.attach(54321); }) == EBADF);
    if (!other.loops()) {
        const int file = open("/dev/null", O_RDWR), system = open("/dev/kvm", O_RDWR);
        CHECK(errno_of_call([&] { return m.attach(file); }) == EINVAL);
        CHECK(errno_of_call([&] { return m.attach(system); }) == EINVAL);
        CHECK(errno_of_call([&] { return m.attach(m.vcpu(0)); }) == EINVAL);
        CHECK(errno_of_call([&] { return m.attach(m.device()); }) == EINVAL);
        close(file);
        close(system);
    }
    CHECK(m.attach(m.vm()) == 0);
    CHECK(errno_of_call([&] { return m.attach(m.vm()); }) == EBUSY);
}

TEST_CASE("another version of the interface is refused as such") {
    machine m(1, machine::attachment::none);
    for (unsigned version : {0u, XOS_ABI_VERSION + 1u, ~0u}) {
        CHECK(errno_of_call([&] { return m.attach(m.vm(), all_calls, version); }) == EPROTO);
    }
    CHECK(m.attach(m.vm()) == 0);
}

TEST_CASE("a vCPU without a frame goes to user space") {
    machine m(2);
    machine bare(1, machine::attachment::none);
    REQUIRE(bare.attach(bare.vm()) == 0);
    CHECK(bare.ring() == (m.loops() ? returned{why::failed, EINVAL} : returned{why::punted}));
    CHECK(bare.statistics().punted[XOS_PUNT_VCPU] == 1);
    for (unsigned id : {64u, 4096u, ~0u}) {
        CHECK(errno_of_call([&] { return m.add_vcpu(id, &m.frame()); }) == EINVAL);
    }
}

TEST_CASE("before attaching there is nothing to do") {
    machine m(1, machine::attachment::none);
    const int device = open("/dev/xos", O_RDWR | O_CLOEXEC);
    xos_vcpu v{0, 0, 0};
    xos_run r{m.vcpu(0), 0, 0};
    CHECK(errno_of_call([&] { return ioctl(device, XOS_IOC_VCPU, &v); }) == EINVAL);
    CHECK(errno_of_call([&] { return ioctl(device, XOS_IOC_RUN, &r); }) == EINVAL);
    for (unsigned long request : {XOS_IOC_INFO, XOS_IOC_ATTACH, XOS_IOC_VCPU, XOS_IOC_RUN,
                                  XOS_IOC_STATISTICS, XOS_IOC_LAYOUT, XOS_IOC_GUARD}) {
        CHECK(errno_of_call([&] { return ioctl(device, request, 8); }) == EFAULT);
        CHECK(errno_of_call([&] { return ioctl(device, request ^ 0x10000, &v); }) == ENOTTY);
    }
    CHECK(errno_of_call([&] { return ioctl(device, KVM_RUN, 0); }) == ENOTTY);
    close(device);
}

TEST_CASE("closing the device does not detach") {
    machine m;
    if (m.loops()) return;
    close(m.device());
    CHECK(m.make(call(SYS_getppid)) == returned{why::halted});
    CHECK(m.frame().call.result == getppid());
}

TEST_CASE("a forked child has no part in it") {
    machine m;
    const ended child = in_child([&] {
        m.frame().call = call(SYS_getppid);
        if (m.run().what != why::failed) return 1;
        if (m.frame().call.result != 0xdead) return 2;
        if (errno_of_call([&] { return m.add_vcpu(0, &m.frame()); }) != EINVAL) return 3;
        machine own(1, machine::attachment::none);
        if (!m.loops() && errno_of_call([&] { return own.attach(m.vm()); }) != EPERM) return 4;
        if (own.attach(own.vm()) != 0) return 5;
        return 0;
    });
    CHECK(child.status == "exit 0");
    CHECK(m.make(call(SYS_gettid)) == returned{why::halted});
    CHECK(m.frame().call.result == gettid());
}

TEST_CASE("another program has no part in it") {
    machine m;
    // The descriptors stay open over exec; a script cannot do more with them than hold them.
    for (int fd : {m.vm(), m.vcpu(0), m.device()}) fcntl(fd, F_SETFD, 0);
    const ended child = in_child([&] { return execl("/bin/sh", "sh", "-c", "exit 0", nullptr); });
    CHECK(child.status == "exit 0");
    CHECK(m.make(call(SYS_getppid)) == returned{why::halted});
}

TEST_CASE("a process killed anywhere leaves nothing behind") {
    for (int i = 0; i < 12; i++) {
        int ends[2];
        REQUIRE(pipe(ends) == 0);
        const int pid = fork();
        if (pid == 0) {
            machine m;
            char byte;
            (void)!write(ends[1], "x", 1);
            if (i % 3 == 0)
                m.make(call(SYS_read, {static_cast<unsigned>(ends[0]), address_of(&byte), 1}));
            if (i % 3 == 1) m.make(call(SYS_pause));
            m.frame().call = call(SYS_getppid);
            for (;;) m.ring(0, 1000);
        }
        char byte;
        if (i % 3 != 0) CHECK(read(ends[0], &byte, 1) == 1);
        for (int k = 0; k < i * 300; k++) sched_yield();
        kill(pid, SIGKILL);
        int status;
        waitpid(pid, &status, 0);
        CHECK(describe(status) == "signal 9");
        close(ends[0]);
        close(ends[1]);
    }
}

TEST_CASE("a module in use cannot be removed") {
    machine m;
    CHECK(errno_of_call([] { return syscall(SYS_delete_module, "xos", O_NONBLOCK); }) ==
          EWOULDBLOCK);
    CHECK(m.make(call(SYS_getppid)) == returned{why::halted});
}

}  // namespace xos::test
