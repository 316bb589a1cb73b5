// What the module makes, what it leaves, and what comes back.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
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

constexpr returned halted{why::halted}, punted{why::punted};

struct pipe_pair {
    int ends[2];
    pipe_pair() { REQUIRE(pipe(ends) == 0); }
    ~pipe_pair() {
        close(ends[0]);
        close(ends[1]);
    }
};

std::int64_t result_of(machine& m, const xos_call& c) {
    REQUIRE(m.make(c) == halted);
    return m.frame().call.result;
}

xos_call vector_of(const std::vector<xos_call>& calls, std::size_t count) {
    return call(XOS_NR_VECTOR, {address_of(calls.data()), count});
}

}  // namespace

TEST_CASE("a call is made for the thread that rings") {
    machine m;
    CHECK(result_of(m, call(SYS_getppid)) == getppid());
    CHECK(result_of(m, call(SYS_gettid)) == gettid());
    const pipe_pair p;
    const char text[] = "by the doorbell";
    CHECK(result_of(m, call(SYS_write, {static_cast<unsigned>(p.ends[1]), address_of(text), 15})) ==
          15);
    char read_back[16] = {};
    CHECK(read(p.ends[0], read_back, 15) == 15);
    CHECK(std::string(read_back) == text);
    CHECK(result_of(m, call(SYS_write, {12345, address_of(text), 15})) == -EBADF);
    CHECK(result_of(m, call(SYS_write, {static_cast<unsigned>(p.ends[1]), 1, 15})) == -EFAULT);
    const auto mapped = result_of(m, call(SYS_mmap, {0, 4096, PROT_READ | PROT_WRITE,
                                                     MAP_PRIVATE | MAP_ANONYMOUS, ~0ull, 0}));
    REQUIRE(mapped > 0);
    *reinterpret_cast<volatile int*>(mapped) = 7;
    CHECK(result_of(m, call(SYS_munmap, {static_cast<std::uint64_t>(mapped), 4096})) == 0);
    CHECK(m.statistics().calls[SYS_write] == 3);
}

TEST_CASE("nothing returns to user space while calls are made") {
    machine m;
    m.frame().call = call(SYS_getppid);
    CHECK(m.ring(0, 10'000) == halted);
    CHECK(m.statistics().calls[SYS_getppid] == 10'000);
}

TEST_CASE("what the module does not make is left as it was") {
    machine m;
    for (std::uint64_t number : {std::uint64_t{SYS_clone},
                                 std::uint64_t{SYS_clone3},
                                 std::uint64_t{SYS_fork},
                                 std::uint64_t{SYS_vfork},
                                 std::uint64_t{SYS_execve},
                                 std::uint64_t{SYS_execveat},
                                 std::uint64_t{SYS_exit},
                                 std::uint64_t{SYS_exit_group},
                                 std::uint64_t{SYS_ioctl},
                                 std::uint64_t{SYS_ptrace},
                                 std::uint64_t{SYS_rt_sigreturn},
                                 std::uint64_t{SYS_arch_prctl},
                                 std::uint64_t{SYS_seccomp},
                                 std::uint64_t{SYS_prctl},
                                 std::uint64_t{SYS_close},
                                 std::uint64_t{SYS_dup2},
                                 std::uint64_t{SYS_dup3},
                                 std::uint64_t{SYS_close_range},
                                 std::uint64_t{SYS_unshare},
                                 std::uint64_t{SYS_setns},
                                 std::uint64_t{SYS_io_uring_setup},
                                 std::uint64_t{SYS_io_uring_enter},
                                 std::uint64_t{SYS_iopl},
                                 std::uint64_t{SYS_modify_ldt},
                                 std::uint64_t{SYS_sigaltstack},
                                 std::uint64_t{SYS_rt_sigaction},
                                 std::uint64_t{SYS_restart_syscall},
                                 std::uint64_t{SYS_pkey_alloc},
                                 std::uint64_t{SYS_delete_module},
                                 std::uint64_t{511},
                                 std::uint64_t{512},
                                 std::uint64_t{0x40000000 | SYS_getppid},
                                 std::uint64_t{1} << 32 | SYS_getppid,
                                 ~std::uint64_t{0}}) {
        INFO(number);
        CHECK(m.make(call(number)) == punted);
        CHECK(m.frame().call.result == 0xdead);
    }
    CHECK(m.statistics().punted[XOS_PUNT_CALL] == 34);
    CHECK(m.make(call(SYS_mmap, {0, 4096, PROT_EXEC})) == punted);
}

TEST_CASE("only the calls that the program has named are made") {
    machine m(1, machine::attachment::none);
    call_list calls{};
    calls[SYS_getppid] = XOS_CALL_MADE;
    REQUIRE(m.attach(m.vm(), calls) == 0);
    REQUIRE(m.add_vcpu(0, &m.frame()) == 0);
    m.frame().call = call(SYS_getppid);
    CHECK(m.ring() == halted);
    m.frame().call = call(SYS_gettid);
    CHECK(m.ring() == punted);
}

TEST_CASE("a closed gate leaves everything to user space") {
    machine m;
    m.frame().gate = 1;
    CHECK(m.make(call(SYS_getppid)) == punted);
    CHECK(m.run() == halted);
    m.frame().gate = 0;
    CHECK(m.make(call(SYS_getppid)) == halted);
    CHECK(m.statistics().punted[XOS_PUNT_GATE] == 1);
}

TEST_CASE("a frame that cannot be read or written hurts nobody") {
    machine m;
    auto* page =
        static_cast<xos_frame*>(mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    REQUIRE(mprotect(reinterpret_cast<char*>(page) + 4096, 4096, PROT_NONE) == 0);
    for (std::uint64_t at : {std::uint64_t{0}, std::uint64_t{0x1000}, address_of(page) + 4096 - 8,
                             std::uint64_t{0x7fffffffffff}, std::uint64_t{0x800000000000},
                             std::uint64_t{0xffffffff81000000}, ~std::uint64_t{0}}) {
        REQUIRE(m.add_vcpu(0, reinterpret_cast<xos_frame*>(at)) == 0);
        CHECK(m.ring() == punted);
    }
    CHECK(m.statistics().punted[XOS_PUNT_FRAME] == 7);
    REQUIRE(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
    page->call = call(SYS_getppid);
    REQUIRE(mprotect(page, 4096, PROT_READ) == 0);
    REQUIRE(m.add_vcpu(0, page) == 0);
    CHECK(m.ring() == halted);  // the answer is lost
    CHECK(page->call.result == 0xdead);
    // A call that takes its own frame away.
    REQUIRE(mprotect(page, 4096, PROT_READ | PROT_WRITE) == 0);
    page->call = call(SYS_munmap, {address_of(page), 4096});
    CHECK(m.ring() == halted);
    CHECK(m.ring() == punted);
}

TEST_CASE("a vector is made by one doorbell") {
    machine m;
    const pipe_pair p;
    std::vector<xos_call> calls(32, call(SYS_getppid));
    calls[7] = call(SYS_write, {static_cast<unsigned>(p.ends[1]), address_of("x"), 1});
    calls[9] = call(SYS_write, {12345, address_of("x"), 1});
    std::uint64_t made = 0;
    unsigned rings = 0;
    while (made < calls.size()) {
        m.frame().call = call(XOS_NR_VECTOR, {address_of(&calls[made]), calls.size() - made});
        REQUIRE(m.ring() == halted);
        REQUIRE(m.frame().call.result > 0);
        made += static_cast<std::uint64_t>(m.frame().call.result);
        rings++;
    }
    CHECK(rings <= 4);  // one, but for the machine's clock interrupting
    for (unsigned i = 0; i < 32; i++) {
        INFO(i);
        CHECK(calls[i].result == (i == 7 ? 1 : i == 9 ? -EBADF : getppid()));
    }
    CHECK(m.statistics().vectors == rings);
    CHECK(m.statistics().calls[SYS_getppid] == 30);
}

TEST_CASE("a vector stops before what the module does not make") {
    machine m;
    std::vector<xos_call> calls{call(SYS_getppid), call(SYS_getpid), call(SYS_ioctl),
                                call(SYS_gettid)};
    std::uint64_t made = 0;
    while (made < 2) {
        m.frame().call = call(XOS_NR_VECTOR, {address_of(&calls[made]), 4 - made});
        REQUIRE(m.ring() == halted);
        made += static_cast<std::uint64_t>(m.frame().call.result);
    }
    CHECK(made == 2);
    CHECK(calls[0].result == getppid());
    CHECK(calls[1].result == getpid());
    CHECK(calls[2].result == 0xdead);
    CHECK(calls[3].result == 0xdead);
    CHECK(m.make(call(XOS_NR_VECTOR, {address_of(&calls[2]), 2})) == punted);
}

TEST_CASE("a vector that makes no sense goes to user space") {
    machine m;
    const std::vector<xos_call> calls(4, call(SYS_getppid));
    CHECK(m.make(vector_of(calls, 0)) == punted);
    CHECK(m.make(vector_of(calls, XOS_VECTOR_MAX + 1)) == punted);
    CHECK(m.make(vector_of(calls, ~0ull)) == punted);
    CHECK(m.make(call(XOS_NR_VECTOR, {0x1000, 4})) == punted);
    CHECK(m.make(call(XOS_NR_VECTOR, {0xffffffff81000000, 4})) == punted);
    const std::vector<xos_call> nested(1, vector_of(calls, 4));
    CHECK(m.make(vector_of(nested, 1)) == punted);
    // The array ends where memory ends.
    auto* page = static_cast<unsigned char*>(
        mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    munmap(page + 4096, 4096);
    auto* last = reinterpret_cast<xos_call*>(page + 4096) - 1;
    *last = call(SYS_getppid);
    CHECK(m.make(call(XOS_NR_VECTOR, {address_of(last), 4})) == halted);
    CHECK(m.frame().call.result == 1);
    CHECK(last->result == getppid());
}

TEST_CASE("vCPUs ring at the same time") {
    constexpr unsigned threads = 4;
    machine m(threads);
    std::atomic<unsigned> right = 0;
    on_threads(threads, [&](unsigned i) {
        for (int round = 0; round < 20; round++) {
            m.frame(i).call = call(SYS_gettid);
            if (m.ring(i, 100) == halted && m.frame(i).call.result == gettid()) right++;
        }
    });
    CHECK(right == threads * 20);
    CHECK(m.statistics().calls[SYS_gettid] == threads * 20 * 100);
}

TEST_CASE("memory slots change while a call sleeps") {
    machine m;
    const pipe_pair p;
    char byte = 0;
    std::atomic<bool> changed = false;
    std::thread other([&] {
        // The call sleeps once the reader's thread is in the kernel: nobody writes before that.
        eventually([&] { return m.frame().gate == 0 && m.frame().call.number == SYS_read; });
        void* memory =
            mmap(nullptr, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        for (unsigned slot = 1; slot < 20; slot++) {
            kvm_userspace_memory_region r{slot, 0, (std::uint64_t{1} << 30) + slot * (1u << 20),
                                          1 << 20, address_of(static_cast<char*>(memory))};
            if (ioctl(m.vm(), KVM_SET_USER_MEMORY_REGION, &r) != 0) return;
            r.memory_size = 0;
            if (ioctl(m.vm(), KVM_SET_USER_MEMORY_REGION, &r) != 0) return;
        }
        changed = true;
        (void)!write(p.ends[1], "x", 1);
    });
    CHECK(m.make(call(SYS_read, {static_cast<unsigned>(p.ends[0]), address_of(&byte), 1})) ==
          halted);
    other.join();
    CHECK(m.frame().call.result == 1);
    CHECK(changed);
}

TEST_CASE("the layout of memory can be asked for") {
    machine m;
    constexpr std::size_t bytes = 4 << 20;
    auto* at = static_cast<unsigned char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (std::size_t i = 0; i < bytes / 2; i += 4096) at[i] = 1;
    std::vector<xos_extent> extents(1024);
    xos_layout l{address_of(at), bytes, address_of(extents.data()), 1024, 0};
    REQUIRE(ioctl(m.device(), XOS_IOC_LAYOUT, &l) == 0);
    CHECK(l.bytes == 0);
    REQUIRE(l.count > 0);
    std::uint64_t sum = 0;
    for (unsigned i = 0; i < l.count; i++) {
        sum += extents[i].bytes;
        CHECK(extents[i].address % 4096 == 0);
        CHECK(extents[i].physical % 4096 == 0);
        CHECK(extents[i].node == 0);
    }
    CHECK(sum == bytes / 2);  // what was never touched is not there
    // Two extents at a time come to the same.
    xos_layout part{address_of(at), bytes, address_of(extents.data()), 2, 0};
    std::uint64_t again = 0;
    while (part.bytes) {
        REQUIRE(ioctl(m.device(), XOS_IOC_LAYOUT, &part) == 0);
        for (unsigned i = 0; i < part.count; i++) again += extents[i].bytes;
    }
    CHECK(again == sum);
    for (auto bad : {xos_layout{address_of(at) + 1, 4096, address_of(extents.data()), 4, 0},
                     xos_layout{address_of(at), 4095, address_of(extents.data()), 4, 0},
                     xos_layout{0xffffffff81000000, 4096, address_of(extents.data()), 4, 0},
                     xos_layout{0, ~0ull << 12, address_of(extents.data()), 4, 0},
                     xos_layout{address_of(at), 4096, 0, 0, 0}}) {
        CHECK(errno_of_call([&] { return ioctl(m.device(), XOS_IOC_LAYOUT, &bad); }) == EINVAL);
    }
    xos_layout nowhere{address_of(at), 4096, 0x10, 4, 0};
    REQUIRE(ioctl(m.device(), XOS_IOC_LAYOUT, &nowhere) == 0);
    CHECK(nowhere.bytes == 4096);
    const ended child = in_child([&] {
        if (setuid(1000) != 0) return 2;
        xos_layout mine{address_of(at), 4096, address_of(extents.data()), 4, 0};
        return ioctl(m.device(), XOS_IOC_LAYOUT, &mine) == -1 && errno == EPERM ? 0 : 1;
    });
    CHECK(child.status == "exit 0");
}

}  // namespace xos::test
