// What the module looks at before a call: memory by the guest's tables, descriptors, names of files.
#include <fcntl.h>
#include <linux/futex.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tests/guest/support.hpp"
#include "tests/kmod/machine.hpp"

namespace xos::test {

namespace {

using why = returned::why;
constexpr returned halted{why::halted}, punted{why::punted};
constexpr std::size_t page = 4096, large_page = std::size_t{2} << 20;
constexpr std::uint64_t present = 1, writable = 2, large = 0x80;
constexpr std::uint64_t written = 1;

unsigned look(unsigned i, std::uint64_t what) {
    return static_cast<unsigned>(what << i * XOS_LOOK_BITS);
}

char* reserve(std::size_t bytes) {
    return static_cast<char*>(
        mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

/// 4 MiB of memory that Linux lets everybody touch. Tables decide about it: at first all of it may
/// be written; the first half is mapped by pages, the second by one large leaf.
struct guarded_memory {
    static constexpr std::uint64_t physical = 0x40000000;
    char* const at = [] {
        const auto found = address_of(reserve(3 * large_page));
        return reinterpret_cast<char*>((found + large_page - 1) & ~(large_page - 1));
    }();
    std::uint64_t* const tables = reinterpret_cast<std::uint64_t*>(reserve(8 * page));
    machine m{1, machine::attachment::none};

    explicit guarded_memory(const call_list& calls) {
        // A table each from the root on; where the memory crosses into another, one more.
        unsigned used = 1;
        for (unsigned half = 0; half < 2; half++) {
            const std::uint64_t address = address_of(at) + half * large_page;
            std::uint64_t* slots = tables;
            for (unsigned shift = 39; shift > 21; shift -= 9) {
                auto& e = slots[address >> shift & 511];
                if (!e) e = (physical + used++ * page) | present | writable;
                slots = tables + (e - physical) / page * 512;
            }
            auto& e = slots[address >> 21 & 511];
            if (half) {
                e = present | writable | large;
                large_leaf = &e;
            } else {
                e = (physical + used * page) | present | writable;
                leaves = tables + used++ * 512;
            }
        }
        for (unsigned i = 0; i < 512; i++) leaves[i] = present | writable;
        REQUIRE(m.attach(m.vm(), calls) == 0);
        REQUIRE(m.add_vcpu(0, &m.frame()) == 0);
        REQUIRE(m.guard(range()) == 0);
    }
    xos_guard range() const {
        return {address_of(at), 2 * large_page, physical, address_of(tables), physical, 8 * page};
    }
    std::uint64_t address(std::uint64_t offset) const { return address_of(at) + offset; }

    std::uint64_t *leaves = nullptr, *large_leaf = nullptr;
};

template <class Call>
int errno_of_call(Call c) {
    return c() == -1 ? errno : 0;
}

}  // namespace

TEST_CASE("a buffer is looked at by the guest's tables from end to end") {
    call_list calls = all_calls;
    calls[SYS_read] |= look(1, XOS_LOOK_NEXT | written);
    calls[SYS_write] |= look(1, XOS_LOOK_NEXT);
    calls[SYS_sched_getaffinity] |= look(2, XOS_LOOK_PREVIOUS | written);
    calls[SYS_gettimeofday] |= look(0, XOS_LOOK_START | written);
    guarded_memory g(calls);
    const auto zeros = static_cast<unsigned>(open("/dev/zero", O_RDWR));
    const auto reads = [&](std::uint64_t from, std::uint64_t n) {
        return g.m.make(call(SYS_read, {zeros, g.address(from), n}));
    };
    const auto writes = [&](std::uint64_t from, std::uint64_t n) {
        return g.m.make(call(SYS_write, {zeros, g.address(from), n}));
    };
    CHECK(reads(100, 64) == halted);
    CHECK(g.m.frame().call.result == 64);
    CHECK(reads(0, 512 * page) == halted);
    CHECK(reads(500 * page, 20 * page) == halted);
    CHECK(reads(2 * large_page - 10, 10) == halted);
    // Not mapped, only to be read, and mapped again.
    g.leaves[5] = 0;
    for (std::uint64_t from : {5 * page, 5 * page + 4095, 4 * page + 1, 0 * page}) {
        CHECK(reads(from, from ? page : 100 * page) == punted);
        CHECK(writes(from, from ? page : 100 * page) == punted);
    }
    CHECK(reads(4 * page, page) == halted);
    CHECK(reads(6 * page, page) == halted);
    CHECK(reads(5 * page, 0) == punted);
    g.leaves[5] = present;
    CHECK(reads(4 * page, 2 * page) == punted);
    CHECK(writes(4 * page, 2 * page) == halted);
    g.leaves[5] = present | writable;
    CHECK(reads(4 * page, 2 * page) == halted);
    // By the large leaf.
    *g.large_leaf = present | large;
    CHECK(reads(511 * page, page) == halted);
    CHECK(reads(511 * page, page + 1) == punted);
    CHECK(writes(511 * page, page + 1) == halted);
    *g.large_leaf = 0;
    CHECK(writes(511 * page, page + 1) == punted);
    // Beyond the end, and more than the module looks at.
    *g.large_leaf = present | writable | large;
    CHECK(writes(2 * large_page - 10, 11) == punted);
    CHECK(writes(0, large_page + 1) == punted);
    CHECK(writes(page, ~0ull) == punted);
    // Other memory.
    char byte;
    CHECK(g.m.make(call(SYS_read, {zeros, address_of(&byte), 1})) == halted);
    CHECK(g.m.make(call(SYS_read, {zeros, 16, 1})) == halted);
    CHECK(g.m.frame().call.result == -EFAULT);
    // By a size before it, and without one.
    g.leaves[5] = 0;
    CHECK(g.m.make(call(SYS_sched_getaffinity, {0, 128, g.address(5 * page - 128)})) == halted);
    CHECK(g.m.make(call(SYS_sched_getaffinity, {0, 128, g.address(5 * page - 120)})) == punted);
    CHECK(g.m.make(call(SYS_gettimeofday, {g.address(5 * page), 0})) == punted);
    CHECK(g.m.make(call(SYS_gettimeofday, {g.address(6 * page), 0})) == halted);
    CHECK(g.m.statistics().punted[XOS_PUNT_LOOK] == 17);
    // Each call of a vector.
    std::vector<xos_call> many{call(SYS_read, {zeros, g.address(0), 1}),
                               call(SYS_read, {zeros, g.address(5 * page), 1}), call(SYS_getppid)};
    REQUIRE(g.m.make(call(XOS_NR_VECTOR, {address_of(many.data()), 3})) == halted);
    CHECK(g.m.frame().call.result == 1);
    CHECK(many[1].result == 0xdead);
    CHECK(g.m.make(call(XOS_NR_VECTOR, {address_of(&many[1]), 2})) == punted);
    CHECK(g.m.statistics().punted[XOS_PUNT_LOOK] == 18);
    // Nothing is guarded any more.
    xos_guard none{};
    REQUIRE(g.m.guard(none) == 0);
    CHECK(reads(5 * page, 1) == halted);
}

TEST_CASE("arrays and messages are looked at with what they point to") {
    call_list calls = all_calls;
    calls[SYS_readv] |= look(1, XOS_LOOK_BUFFERS | written);
    calls[SYS_writev] |= look(1, XOS_LOOK_BUFFERS);
    calls[SYS_sendmsg] |= look(1, XOS_LOOK_MESSAGE);
    calls[SYS_recvmmsg] |= look(1, XOS_LOOK_MESSAGES | written);
    calls[SYS_futex] |= look(0, XOS_LOOK_FUTEX);
    guarded_memory g(calls);
    g.leaves[5] = 0;
    g.leaves[7] = present;
    const auto zeros = static_cast<unsigned>(open("/dev/zero", O_RDWR));
    iovec own[2] = {{g.at, 10}, {g.at + 5 * page - 10, 10}};
    const auto with = [&](unsigned number, const iovec* array, std::uint64_t n) {
        return g.m.make(call(number, {zeros, address_of(array), n}));
    };
    CHECK(with(SYS_readv, own, 2) == halted);
    CHECK(g.m.frame().call.result == 20);
    own[1].iov_len = 11;
    CHECK(with(SYS_readv, own, 2) == punted);
    CHECK(with(SYS_readv, own, 1) == halted);
    own[1] = {g.at + 7 * page, 10};
    CHECK(with(SYS_readv, own, 2) == punted);
    CHECK(with(SYS_writev, own, 2) == halted);
    auto* inside = reinterpret_cast<iovec*>(g.at + 5 * page - sizeof *own);
    *inside = own[0];
    CHECK(with(SYS_writev, inside, 1) == halted);
    CHECK(with(SYS_writev, inside, 2) == punted);
    CHECK(with(SYS_writev, own, XOS_LOOK_BITS * 1000) == punted);
    CHECK(with(SYS_writev, reinterpret_cast<iovec*>(16), 1) == punted);

    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, ends) == 0);
    msghdr message{};
    message.msg_iov = own;
    message.msg_iovlen = 2;
    const auto sends = [&] {
        return g.m.make(call(SYS_sendmsg, {static_cast<unsigned>(ends[0]), address_of(&message)}));
    };
    CHECK(sends() == halted);
    CHECK(g.m.frame().call.result == 20);
    own[1].iov_base = g.at + 5 * page;
    CHECK(sends() == punted);
    own[1].iov_base = g.at;
    message.msg_control = g.at + 5 * page;
    message.msg_controllen = 16;
    CHECK(sends() == punted);
    message.msg_control = nullptr;
    message.msg_controllen = 0;
    message.msg_name = g.at + 5 * page;
    message.msg_namelen = 2;
    CHECK(sends() == punted);
    message.msg_name = nullptr;
    message.msg_namelen = 0;
    mmsghdr several[2] = {{message, 0}, {message, 0}};
    const auto receives = [&] {
        return g.m.make(call(SYS_recvmmsg, {static_cast<unsigned>(ends[1]), address_of(several), 2,
                                            MSG_DONTWAIT, 0}));
    };
    CHECK(receives() == halted);
    CHECK(g.m.frame().call.result == 1);
    own[1].iov_base = g.at + 7 * page;
    CHECK(receives() == punted);

    const auto wakes = [&](std::size_t at, std::uint64_t how) {
        return g.m.make(call(SYS_futex, {g.address(at), FUTEX_WAKE | how, 1}));
    };
    CHECK(wakes(6 * page, 0) == halted);
    CHECK(wakes(7 * page, 0) == punted);
    CHECK(wakes(7 * page, FUTEX_PRIVATE_FLAG) == halted);
    CHECK(wakes(5 * page, FUTEX_PRIVATE_FLAG) == punted);
    CHECK(g.m.statistics().punted[XOS_PUNT_CALL] == 0);
}

TEST_CASE("the program's own descriptors and the file of its memory are left to user space") {
    std::vector<std::uint64_t> bits(XOS_DESCRIPTORS / 64);
    call_list calls = all_calls;
    calls[SYS_read] |= look(0, XOS_LOOK_DESCRIPTOR);
    calls[SYS_openat] |= look(0, XOS_LOOK_DESCRIPTOR) | look(1, XOS_LOOK_OPENED);
    machine m(1, machine::attachment::none);
    m.descriptors = bits.data();
    REQUIRE(m.attach(m.vm(), calls) == 0);
    REQUIRE(m.add_vcpu(0, &m.frame()) == 0);
    bits[100 / 64] |= std::uint64_t{1} << 100 % 64;
    char byte;
    const auto reads = [&](std::uint64_t fd) {
        return m.make(call(SYS_read, {fd, address_of(&byte), 1}));
    };
    CHECK(reads(100) == punted);
    CHECK(reads(std::uint64_t{7} << 32 | 100) == punted);
    for (std::uint64_t fd : {99ull, 101ull, 100ull + XOS_DESCRIPTORS, ~0ull}) {
        CHECK(reads(fd) == halted);
        CHECK(m.frame().call.result == -EBADF);
    }
    const auto opens = [&](const char* name) {
        return m.make(call(SYS_openat, {static_cast<std::uint64_t>(AT_FDCWD), address_of(name)}));
    };
    CHECK(opens("/proc/self/mem") == halted);  // Linux has nothing else there than the guest
    guarded_memory g(calls);
    const auto opens_guarded = [&](const char* name) {
        return g.m.make(call(SYS_openat, {static_cast<std::uint64_t>(AT_FDCWD), address_of(name)}));
    };
    CHECK(opens_guarded("/proc/self/mem") == punted);
    CHECK(opens_guarded("/mem") == punted);
    for (const char* name : {"", "mem", "/men", "/proc/self/mem/", "/proc/self/stat"}) {
        const std::string resident(name);
        CHECK(opens_guarded(resident.c_str()) == halted);
    }
    std::strcpy(g.at + 3 * page - 2, "/dev/null");
    CHECK(opens_guarded(g.at + 3 * page - 2) == halted);
    g.leaves[2] = 0;
    CHECK(opens_guarded(g.at + 3 * page - 2) == punted);
    CHECK(opens_guarded(reinterpret_cast<const char*>(16)) == punted);
}

TEST_CASE("tables that make no sense forbid, and what could not be looked at is refused") {
    call_list calls = all_calls;
    calls[SYS_read] |= look(1, XOS_LOOK_NEXT | written);
    guarded_memory g(calls);
    const auto zeros = static_cast<unsigned>(open("/dev/zero", O_RDWR));
    const auto reads = [&] { return g.m.make(call(SYS_read, {zeros, g.address(0), 1})); };
    auto& root = g.tables[g.address(0) >> 39 & 511];
    const std::uint64_t right = root;
    CHECK(reads() == halted);
    for (std::uint64_t wrong : {std::uint64_t{0}, guarded_memory::physical - page, right + 8 * page,
                                ~std::uint64_t{0} & ~large}) {
        root = wrong | present | writable;
        CHECK(reads() == punted);
    }
    root = right;
    CHECK(reads() == halted);
    munmap(g.tables, 8 * page);
    CHECK(reads() == punted);

    CHECK(errno_of_call([&] { return g.m.guard(g.range()); }) == EBUSY);
    machine m;
    for (unsigned i = 0; i < 5; i++) {
        xos_guard bad = g.range();
        if (i == 0) bad.begin += 8;
        if (i == 1) bad.length = ~std::uint64_t{0} - page + 1;
        if (i == 2) bad.tables = 0xffffffff81000000;
        if (i == 3) bad.tables_length = std::uint64_t{1} << 60;
        if (i == 4) bad.tables_length = 0;
        CHECK(errno_of_call([&] { return m.guard(bad); }) == EINVAL);
    }
    for (std::uint32_t bad :
         {look(0, XOS_LOOK_PREVIOUS), look(5, XOS_LOOK_NEXT), look(5, XOS_LOOK_FUTEX),
          look(5, XOS_LOOK_BUFFERS), look(5, XOS_LOOK_MESSAGES | written), look(6, 1)}) {
        machine other(1, machine::attachment::none);
        call_list wrong = all_calls;
        wrong[SYS_read] |= bad;
        CHECK(errno_of_call([&] { return other.attach(other.vm(), wrong); }) == EINVAL);
        wrong[SYS_read] = 1;
        CHECK(errno_of_call([&] { return other.attach(other.vm(), wrong); }) == EINVAL);
    }
}

}  // namespace xos::test
