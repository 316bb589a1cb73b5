// Operations under way while the thread goes on: by io_uring and by plain calls, natively and
// inside, with the same results.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <deque>
#include <numeric>
#include <xos/features.hpp>
#include <xos/io_queue.hpp>
#include <xos/stats.hpp>

#include "tests/guest/operations.hpp"
#include "tests/guest/support.hpp"

namespace xos::test {

namespace {

using namespace std::chrono_literals;

// ---- what compiles

template <class Buffer>
concept readable_into = requires(io_queue& q, Buffer&& buffer) {
    q.read(0, std::forward<Buffer>(buffer));
    q.pread(0, std::forward<Buffer>(buffer), 0);
    q.recv(0, std::forward<Buffer>(buffer));
};
template <class Buffer>
concept writable_from = requires(io_queue& q, Buffer&& buffer) {
    q.write(0, std::forward<Buffer>(buffer));
    q.pwrite(0, std::forward<Buffer>(buffer), 0);
    q.send(0, std::forward<Buffer>(buffer));
};
template <class Buffer>
concept gives_back = requires(io_queue& q, Buffer&& buffer) {
    { q.read(0, std::forward<Buffer>(buffer)).take() } -> std::same_as<Buffer>;
    { q.send(0, std::forward<Buffer>(buffer)).take() } -> std::same_as<Buffer>;
};
static_assert(readable_into<std::vector<char>&> && writable_from<const std::array<int, 4>&>);
static_assert(readable_into<std::span<char>> && writable_from<std::string_view>);
// Temporary containers would dangle, unless they move in.
static_assert(!readable_into<std::vector<char>> && !writable_from<std::vector<char>>);
static_assert(!readable_into<std::array<char, 4>> && !writable_from<const std::string>);
static_assert(gives_back<std::string> && gives_back<std::vector<std::byte>>);
static_assert(gives_back<owned_bytes> && !gives_back<std::string&>);
static_assert(!readable_into<const std::vector<char>&> && !writable_from<const char (&)[6]>);
static_assert(!std::movable<io_queue> && !std::copyable<io_future<int>>);
static_assert(std::movable<io_future<int>> && std::is_nothrow_move_assignable_v<io_future<void>>);

// ---- helpers

bool has_ring() {
    static const bool answer = [] {
        try {
            io_queue q({.transport = io_transport::uring});
            return true;
        } catch (const std::system_error&) {
            return false;
        }
    }();
    return answer;
}

/// By both transports, natively and inside, with the same answer.
template <class Probe>
auto same_by_all(Probe probe) {
    const auto plain = same([&] { return probe(io_options{.transport = io_transport::plain}); });
    if (has_ring()) {
        const auto ring = same([&] { return probe(io_options{.transport = io_transport::uring}); });
        CHECK(ring == plain);
    }
    return plain;
}

/// Makes a system call fail in this process from now on.
bool forbid(unsigned number, int error) {
    const sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{std::size(rules), const_cast<sock_filter*>(rules)};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

struct counter : io_listener {
    void ended(std::uint64_t tag) noexcept override { tags.push_back(tag); }
    std::vector<std::uint64_t> tags;
};

int open_descriptors() {
    int count = 0;
    for (int fd = 0; fd < 1024; fd++) count += fcntl(fd, F_GETFD) >= 0;
    return count;
}

}  // namespace

TEST_CASE("operations on files") {
    const auto answers = same_by_all([](const io_options& o) {
        char name[] = "/tmp/queue-XXXXXX";
        const int directory = mkdtemp(name) ? ::open(name, O_DIRECTORY | O_CLOEXEC) : -1;
        std::vector<long> r;
        std::string text;
        {
            io_queue q(o);
            const int fd =
                q.openat(directory, "a", O_RDWR | O_CREAT | O_CLOEXEC, 0600).result().value();
            std::array<char, 4> begin{}, parts{};
            std::array<iovec, 2> from{iovec{const_cast<char*>("gh"), 2},
                                      {const_cast<char*>("ij"), 2}},
                into{iovec{parts.data() + 2, 2}, {parts.data(), 2}};
            struct statx status {};
            const auto note = [&](const auto&... f) { (r.push_back(shown(f)), ...); };
            const auto w = q.write(fd, std::string_view("abcd"));
            const auto pw = q.link().pwrite(fd, std::string("ef"), 4);
            const auto syncs = q.link().fsync(fd);
            const auto data_sync = q.link().fdatasync(fd);
            const auto first = q.link().pread(fd, begin, 0);
            r.push_back(static_cast<long>(q.submit()));
            note(w, pw, syncs, data_sync, first);
            lseek(fd, 6, SEEK_SET);
            note(q.writev(fd, from));
            lseek(fd, 2, SEEK_SET);
            note(q.readv(fd, into));
            const auto longer = q.pread(fd, std::string(8, '.'), 6);
            note(longer);
            note(q.pread(fd, begin, 100));
            note(q.pread(fd, begin, -1));
            note(q.read(directory, begin));
            note(q.renameat(directory, "a", directory, "b"));
            note(q.statx(directory, "b", 0, STATX_SIZE, status));
            note(q.unlinkat(directory, "a"));
            note(q.unlinkat(directory, "b"));
            note(q.close(fd));
            note(q.close(fd));
            note(q.fsync(fd));
            r.push_back(static_cast<long>(status.stx_size));
            text = std::string(begin.begin(), begin.end()) + longer.take() +
                   std::string(parts.begin(), parts.end()) + pw.take();
        }
        ::close(directory);
        rmdir(name);
        return std::pair(r, text);
    });
    CHECK(answers.first == std::vector<long>{5,       4, 2, 0,       0,       4, 4,
                                             4,       4, 0, -EINVAL, -EISDIR, 0, 0,
                                             -ENOENT, 0, 0, -EBADF,  -EBADF,  10});
    CHECK(answers.second == "abcdghij....efcdef");
}

TEST_CASE("operations on sockets") {
    const auto answers = same_by_all([](const io_options& o) {
        const int server = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0),
                  client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un at{};
        at.sun_family = AF_UNIX;
        const std::string name = std::string(1, '\0') + "queue" + std::to_string(getpid());
        name.copy(at.sun_path, sizeof at.sun_path);
        const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size());
        std::vector<long> r;
        io_queue q(o);
        r.push_back(shown(q.connect(client, at, length)));  // nobody listens
        r.push_back(shown(q.accept(client)));
        (void)bind(server, reinterpret_cast<sockaddr*>(&at), length);
        (void)listen(server, 1);
        auto accepted = q.accept(server);
        r.push_back(static_cast<long>(q.submit()));
        r.push_back(accepted.ready());
        auto connected = q.connect(client, at, length);
        r.push_back(shown(connected));
        const int peer = accepted.result().value_or(-1);
        r.push_back(peer >= 0);
        auto got = q.recv(peer, std::string(16, '.'));
        q.submit();
        r.push_back(q.wait_any_for(1ms) == 0 && !got.ready());
        r.push_back(shown(q.send(client, std::string_view("hello"))));
        r.push_back(shown(got));
        r.push_back(got.take() == "hello...........");
        std::array<char, 4> room{};
        r.push_back(shown(q.recv(peer, room, MSG_DONTWAIT)));
        r.push_back(shown(q.read(peer, room.data() ? std::span(room).first(0) : room)));
        auto all = q.recv(peer, room, MSG_WAITALL);
        r.push_back(shown(q.write(client, std::string_view("ab"))));
        r.push_back(all.wait_for(1ms));
        r.push_back(shown(q.write(client, std::string_view("cdef"))));
        r.push_back(shown(all));
        r.push_back(shown(q.poll(peer, POLLIN | POLLOUT)));
        r.push_back(shown(q.read(peer, room)));
        r.push_back(shown(q.shutdown(client, SHUT_WR)));
        r.push_back(shown(q.recv(peer, room)));
        r.push_back(shown(q.poll(-1, POLLIN)));
        r.push_back(shown(q.recv(-1, room)));
        r.push_back(shown(q.shutdown(server, 17)));
        for (int fd : {server, client, peer}) ::close(fd);
        return r;
    });
    CHECK(answers == std::vector<long>{-ECONNREFUSED,
                                       -EINVAL,
                                       1,
                                       0,
                                       0,
                                       1,
                                       1,
                                       5,
                                       5,
                                       1,
                                       -EAGAIN,
                                       0,
                                       2,
                                       0,
                                       4,
                                       4,
                                       POLLIN | POLLOUT,
                                       2,
                                       0,
                                       0,
                                       -EBADF,
                                       -EBADF,
                                       -EINVAL});
}

TEST_CASE("connections by TCP, and peers that reset them") {
    const auto answers = same_by_all([](const io_options& o) {
        const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                  client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof at;
        std::vector<long> r;
        // A machine may be without a loopback interface: then all see the same errors.
        r.push_back(bind(server, reinterpret_cast<sockaddr*>(&at), length));
        r.push_back(listen(server, 1));
        getsockname(server, reinterpret_cast<sockaddr*>(&at), &length);
        io_queue q(o);
        auto connected = q.connect(client, at);
        at = {};  // has been copied
        r.push_back(shown(connected));
        if (r.back()) return r;
        const int peer = q.accept(server).result().value_or(-1);
        std::array<char, 8> room{};
        auto got = q.recv(client, room);
        auto polled = q.poll(client, POLLIN);
        q.submit();
        r.push_back(got.ready());
        const linger at_once{1, 0};
        setsockopt(peer, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        ::close(peer);  // resets
        polled.wait();
        r.push_back(shown(got));
        r.push_back(shown(q.send(client, std::string("late"))));
        r.push_back(shown(q.recv(client, room)));
        ::close(server);
        ::close(client);
        return r;
    });
    if (answers.size() > 3) CHECK(answers == std::vector<long>{0, 0, 0, 0, -ECONNRESET, -EPIPE, 0});
}

TEST_CASE("operations on bad descriptors and bad memory") {
    const auto answers = same_by_all([](const io_options& o) {
        const pipe_ends p;
        io_queue q(o);
        std::array<char, 4> room{};
        const std::span<char> nowhere(reinterpret_cast<char*>(0x1000), 4);
        (void)!write(p.in(), "abcd", 4);
        std::vector<long> r;
        const auto note = [&](const auto&... f) { (r.push_back(shown(f)), ...); };
        note(q.read(-1, room));
        note(q.write(12345, room));
        note(q.read(p.in(), room));
        note(q.write(p.out(), room));
        note(q.read(p.out(), nowhere));
        note(q.send(p.in(), room));
        note(q.write(p.in(), nowhere));
        note(q.openat(AT_FDCWD, "/no/such", O_RDONLY));
        note(q.accept(p.in()));
        note(q.shutdown(-1, 0));
        note(q.connect(p.in(), sockaddr_in{}));
        note(q.recv(p.out(), room));
        note(q.close(-1));
        note(q.nop());
        note(q.pread(p.out(), room, 7));  // the offset is ignored
        return r;
    });
    CHECK(answers == std::vector<long>{-EBADF, -EBADF, -EBADF, -EBADF, -EFAULT, -ENOTSOCK, -EFAULT,
                                       -ENOENT, -ENOTSOCK, -EBADF, -ENOTSOCK, -ENOTSOCK, -EBADF, 0,
                                       4});
}

TEST_CASE("an operation that is linked begins after the one before it has succeeded in full") {
    const auto answers = same_by_all([](const io_options& o) {
        const pipe_ends p;
        const sockets s;
        io_queue q(o);
        std::array<char, 8> room{};
        std::array<char, 2> two{};
        std::vector<long> r;
        const auto note = [&](const auto&... f) { (r.push_back(shown(f)), ...); };
        {
            auto a = q.write(p.in(), std::string_view("abcd"));
            auto b = q.link().read(p.out(), two);   // full
            auto c = q.link().read(p.out(), room);  // short: two of eight
            auto d = q.link().write(p.in(), two);   // cancelled
            auto e = q.link().close(-1);            // and so on
            r.push_back(static_cast<long>(q.submit()));
            note(a, b, c, d, e);
        }
        {
            auto a = q.fsync(-1);
            auto b = q.link().nop();
            auto c = q.nop();  // not linked
            auto d = q.link().timeout(1ms);
            auto e = q.link().nop();
            note(a, b, c, d, e);
        }
        {
            auto a = q.recv(s.out(), room);  // any number of bytes
            auto b = q.link().send(s.out(), std::string_view("reply"));
            auto c = q.link().recv(s.out(), two, MSG_WAITALL);
            auto d = q.link().nop();
            q.submit();
            r.push_back(a.ready() || b.ready());
            note(q.send(s.in(), std::string_view("ask")));
            note(a, b);
            ::shutdown(s.in(), SHUT_WR);
            note(c, d);
        }
        return r;
    });
    CHECK(answers == std::vector<long>{5, 4, 2, 2, -ECANCELED, -ECANCELED, -EBADF, -ECANCELED, 0, 0,
                                       0, 0, 3, 3, 5, 0, -ECANCELED});
}

TEST_CASE("long chains and more operations than the ring has entries") {
    const auto answers = same_by_all([](io_options o) {
        o.entries = 8;
        io_queue q(o);
        const pipe_ends p;
        std::array<char, 1> byte{};
        std::deque<io_future<std::size_t, detail::borrowed_buffer>> f;
        for (unsigned chain = 0; chain < 50; chain++) {
            for (unsigned i = 0; i < 8; i++) {
                if (i) q.link();
                f.push_back(i % 2 ? q.read(p.out(), byte) : q.write(p.in(), std::string_view("x")));
            }
        }
        long sum = static_cast<long>(q.submit());
        for (const auto& x : f) sum += shown(x);
        std::vector<long> r{sum};
        std::vector<io_future<void>> n;
        for (unsigned i = 0; i < 8; i++) n.push_back((i ? q.link() : q).nop());
        r.push_back(refused([&] { q.link().nop(); }) == "bad argument");
        r.push_back(refused([&] { q.link().within(1s).nop(); }) == "bad argument");
        for (const auto& x : n) r.push_back(shown(x));
        return r;
    });
    CHECK(answers == std::vector<long>{800, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("deadlines of operations and of waits") {
    const auto answers = same_by_all([](const io_options& o) {
        const pipe_ends p;
        const sockets s;
        io_queue q(o);
        std::array<char, 4> room{};
        std::vector<long> r;
        const auto note = [&](const auto&... f) { (r.push_back(shown(f)), ...); };
        {
            auto late = q.within(2ms).read(p.out(), room);
            auto linked = q.link().nop();
            note(late, linked);
        }
        {
            // In time: the deadline of the next one begins with it.
            auto a = q.within(10s).send(s.in(), std::string_view("abcd"));
            auto b = q.link().within(10s).recv(s.out(), room);
            auto c = q.link().within(2ms).recv(s.out(), std::string(4, '.'));
            note(a, b, c);
            r.push_back(c.take() == "....");
        }
        const auto begin = std::chrono::steady_clock::now();
        auto waits = q.read(p.out(), room);
        r.push_back(waits.wait_for(3ms));
        r.push_back(waits.wait_until(begin));
        r.push_back(std::chrono::steady_clock::now() - begin >= 3ms);
        r.push_back(static_cast<long>(q.wait_any_for(1ms)));
        auto timer = q.timeout(5ms);
        r.push_back(static_cast<long>(q.wait_any()));
        r.push_back(timer.ready());
        r.push_back(std::chrono::steady_clock::now() - begin >= 9ms);
        note(timer);
        note(q.timeout(0ns));
        (void)!write(p.in(), "x", 1);
        note(waits);
        r.push_back(refused([&] { q.within(-1ns); }) == "bad argument");
        r.push_back(refused([&] { q.timeout(-1ns); }) == "bad argument");
        return r;
    });
    CHECK(answers == std::vector<long>{-ETIMEDOUT, -ECANCELED, 4, 4, -ETIMEDOUT, 1, 0, 0, 1, 0, 1,
                                       1, 1, 0, 0, 1, 1, 1});
}

TEST_CASE("operations that are cancelled") {
    const auto answers = same_by_all([](const io_options& o) {
        const pipe_ends p;
        const sockets s;
        io_queue q(o);
        std::array<char, 4> room{}, other{};
        std::vector<long> r;
        const auto note = [&](const auto&... f) { (r.push_back(shown(f)), ...); };
        {
            auto reads = q.read(p.out(), room);
            auto receives = q.recv(s.out(), other);
            auto linked = q.link().nop();
            auto timer = q.timeout(100s);
            auto polls = q.poll(p.out(), POLLIN);
            q.submit();
            r.push_back(static_cast<long>(q.under_way()));
            reads.cancel();
            receives.cancel();
            timer.cancel();
            polls.cancel();
            note(reads, receives, linked, timer, polls);
            reads.cancel();  // has no effect
            note(reads);
        }
        {
            // One that has not begun takes those before it along.
            auto reads = q.read(p.out(), room);
            auto between = q.link().nop();
            auto last = q.link().read(p.out(), other);
            q.submit();
            last.cancel();
            note(reads, between, last);
        }
        {
            // Not submitted.
            auto a = q.nop();
            auto b = q.link().read(p.out(), room);
            auto c = q.link().nop();
            auto d = q.nop();
            b.cancel();
            r.push_back(b.ready() && c.ready() && !a.ready());
            auto e = q.link().nop();
            r.push_back(static_cast<long>(q.submit()));
            note(a, b, c, d, e);
        }
        // None of them has taken anything.
        (void)!write(p.in(), "abcd", 4);
        note(q.read(p.out(), room));
        auto done = q.nop();
        done.wait();
        done.cancel();
        note(done);
        r.push_back(static_cast<long>(q.under_way()));
        return r;
    });
    constexpr long c = -ECANCELED;
    CHECK(answers == std::vector<long>{5, c, c, c, c, c, c, c, c, c, 1, 3, 0, c, c, 0, 0, 4, 0, 0});
}

TEST_CASE("a buffer outlives its operation") {
    const auto answers = same_by_all([](const io_options& o) {
        const pipe_ends p;
        std::vector<long> r;
        io_queue q(o);
        {
            // Borrowed: the end of the future is the end of the operation.
            std::array<char, 4> room{"..."};
            {
                auto reads = q.read(p.out(), room);
                q.submit();
                r.push_back(static_cast<long>(q.under_way()));
            }
            r.push_back(static_cast<long>(q.under_way()));
            (void)!write(p.in(), "ab", 2);
            r.push_back(room[0] == '.');
            auto assigned = q.read(p.out(), room);
            r.push_back(shown(assigned));
            assigned = q.read(p.out(), room);
            q.submit();
            assigned = q.read(p.out(), room);
            q.submit();
            r.push_back(static_cast<long>(q.under_way()));
            auto moved = std::move(assigned);
            r.push_back(moved.valid() && !assigned.valid());
        }
        {
            // Owned: it goes on without a future.
            std::string room(1, '.');
            { auto reads = q.read(p.out(), std::move(room)); }
            q.write(p.in(), std::string("x"));
            q.submit();
            while (q.under_way()) q.wait_any();
            std::array<char, 1> none{};
            r.push_back(shown(q.within(1ms).read(p.out(), none)));
        }
        {
            std::vector<std::byte> room(64);
            const auto* const where = room.data();
            owned_bytes bytes{std::make_unique<std::byte[]>(5), 5};
            auto wrote = q.write(p.in(), std::string("small"));
            auto reads = q.link().read(p.out(), std::move(room));
            auto failed = q.read(-1, std::move(bytes));
            r.push_back(wrote.take() == "small");
            room = reads.take();
            r.push_back(room.data() == where && room.size() == 64);
            r.push_back(static_cast<long>(failed.take().size));
            r.push_back(refused([&] { (void)reads.take(); }) == "bad argument");
        }
        // Futures may outlive their queue.
        auto other = std::make_unique<io_queue>(o);
        auto ended = other->nop();
        auto reads = other->read(p.out(), std::string("keep"));
        ended.wait();
        auto queued = other->nop();
        other.reset();
        r.push_back(shown(ended));
        r.push_back(shown(reads));
        r.push_back(shown(queued));
        r.push_back(reads.take() == "keep");
        return r;
    });
    CHECK(answers == std::vector<long>{1, 0, 1, 2, 1, 1, -ETIMEDOUT, 1, 1, 5, 1, 0, -ECANCELED,
                                       -ECANCELED, 1});
}

TEST_CASE("closing a descriptor that an operation uses") {
    const auto answers = same_by_all([](const io_options& o) {
        std::vector<long> r;
        {
            io_queue q(o);
            pipe_ends p;
            sockets s;
            std::array<char, 4> a{}, b{}, c{};
            auto first = q.read(p.out(), a);
            auto second = q.recv(s.out(), b);
            auto third = q.recv(s.out(), c);
            q.submit();
            const int old = p.out();
            p.close(0);
            s.close(0);
            // Somebody else gets the numbers.
            const pipe_ends others;
            r.push_back(others.out() == old);
            (void)!write(others.in(), "other", 5);
            r.push_back(first.ready() || second.ready() || third.ready());
            (void)!write(p.in(), "abcd", 4);
            (void)!write(s.in(), "ef", 2);
            // One of the two gets it, the other one meets the end.
            while (!second.ready() && !third.ready()) q.wait_any();
            s.close(1);
            r.push_back(shown(first));
            r.push_back(shown(second) + shown(third));
            r.push_back(a[3] == 'd' && b[0] + c[0] == 'e');
            // Closed in between by an operation; the number is another file's then.
            const pipe_ends more;
            const int last = more.out();
            auto before = q.read(last, b);
            auto closes = q.close(last);
            q.submit();
            closes.wait();
            r.push_back(dup2(others.out(), last) == last);
            (void)!read(others.out(), b.data(), 4);
            auto after = q.read(last, c);
            r.push_back(shown(after));
            (void)!write(more.in(), "gh", 2);
            r.push_back(shown(before));
            // Queued, and closed before it begins.
            auto late = q.read(others.out(), a);
            ::close(others.out());
            r.push_back(shown(late));
        }
        return r;
    });
    CHECK(answers == std::vector<long>{1, 0, 4, 2, 1, 1, 1, 2, -EBADF});
}

TEST_CASE("operations on descriptors that do not block") {
    const auto answers = same_by_all([](const io_options& o) {
        const sockets s;
        const pipe_ends p;
        for (int fd : {s.out(), s.in(), p.out(), p.in()})
            fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
        io_queue q(o);
        std::array<char, 4> a{}, b{}, c{};
        auto first = q.read(p.out(), a);
        auto second = q.recv(s.out(), b);
        q.submit();
        std::vector<long> r{first.ready() || second.ready()};
        (void)!write(p.in(), "abcd", 4);
        (void)!write(s.in(), "ef", 2);
        r.push_back(shown(first));
        r.push_back(shown(second));
        auto third = q.read(s.out(), c);
        r.push_back(third.wait_for(1ms));
        (void)!write(s.in(), "g", 1);
        r.push_back(shown(third));
        return r;
    });
    CHECK(answers == std::vector<long>{0, 4, 2, 0, 1});
}

TEST_CASE("a send that finds no room goes on when there is") {
    const auto answers = same_by_all([](const io_options& o) {
        const sockets s;
        io_queue q(o);
        std::string text(1'000'000, '\0');
        for (std::size_t i = 0; i < text.size(); i++) text[i] = static_cast<char>(i * 7 + i / 251);
        auto sends = q.send(s.in(), text);
        auto linked = q.link().shutdown(s.in(), SHUT_WR);
        q.submit();
        std::vector<long> r{sends.ready()};
        std::string got;
        std::vector<std::byte> room(100'000);
        for (;;) {
            auto reads = q.recv(s.out(), std::move(room));
            const auto n = reads.result().value();
            room = reads.take();
            if (n == 0) break;
            got.append(reinterpret_cast<char*>(room.data()), n);
        }
        r.push_back(shown(sends));
        r.push_back(shown(linked));
        r.push_back(got == text);
        return r;
    });
    CHECK(answers == std::vector<long>{0, 1'000'000, 0, 1});
}

TEST_CASE("a pipe that is full") {
    const auto answers = same_by_all([](const io_options& o) {
        pipe_ends p;
        io_queue q(o);
        const auto room = static_cast<std::size_t>(fcntl(p.in(), F_GETPIPE_SZ));
        const std::string text(room + 100, 'x');
        long put = 0, got = 0;
        auto writes = q.write(p.in(), text);
        q.submit();
        std::string buffer(room, '\0');
        // Shorter than asked is right for both.
        while (!writes.ready()) {
            auto reads = q.read(p.out(), std::move(buffer));
            got += shown(reads);
            buffer = reads.take();
        }
        put = shown(writes);
        p.close(1);
        for (long n = 1; n > 0; got += n) {
            auto reads = q.read(p.out(), std::move(buffer));
            n = shown(reads);
            buffer = reads.take();
        }
        return std::pair(put > 0, put == got);
    });
    CHECK(answers == std::pair(true, true));
}

TEST_CASE("10,000 operations under way") {
    const auto answers = same_by_all([](const io_options& o) {
        constexpr unsigned many = 10'000;
        constexpr unsigned pairs = 100;
        const std::vector<sockets> s(pairs);
        io_queue q(o);
        counter ends;
        std::vector<long> r;
        {
            std::vector<io_future<std::size_t, std::string>> f;
            for (unsigned i = 0; i < many; i++) {
                f.push_back(q.recv(s[i % pairs].out(), std::string(1, '.'), MSG_WAITALL));
                f.back().notify(ends, i);
            }
            r.push_back(static_cast<long>(q.submit()));
            r.push_back(static_cast<long>(q.under_way()));
            const std::string bytes(many / pairs, 'x');
            for (unsigned i = 0; i < pairs / 2; i++)
                (void)!write(s[i].in(), bytes.data(), bytes.size());
            while (ends.tags.size() < many / 2) q.wait_any();
            r.push_back(static_cast<long>(q.under_way()));
            for (const auto& x : f) x.cancel();
            long sum = 0, cancelled = 0;
            for (const auto& x : f) {
                const long n = shown(x);
                sum += n > 0;
                cancelled += n == -ECANCELED;
            }
            r.push_back(sum);
            r.push_back(cancelled);
            std::sort(ends.tags.begin(), ends.tags.end());
            r.push_back(static_cast<long>(ends.tags.size()));
            r.push_back(std::unique(ends.tags.begin(), ends.tags.end()) == ends.tags.end());
        }
        {
            // More of them end at once than the completion ring holds.
            std::vector<io_future<void>> f;
            for (unsigned i = 0; i < many; i++) f.push_back(q.nop());
            r.push_back(static_cast<long>(q.submit()));
            long right = 0;
            for (const auto& x : f) right += shown(x) == 0;
            r.push_back(right);
            f.clear();
            for (unsigned i = 0; i < many; i++) f.push_back(q.timeout(1us * (i % 100)));
            for (const auto& x : f) right += shown(x) == 0;
            r.push_back(right);
        }
        // The queue ends with a thousand.
        for (unsigned i = 0; i < many / 10; i++) q.recv(s[i % pairs].out(), std::string(1, '.'));
        r.push_back(static_cast<long>(q.submit()));
        return r;
    });
    CHECK(answers == std::vector<long>{10'000, 10'000, 5'000, 5'000, 5'000, 10'000, 1, 10'000,
                                       10'000, 20'000, 1'000});
}

TEST_CASE("an operation is one crossing, and many are one") {
    ensure_cell();
    if (!has_ring()) return;
    const auto exits = [] { return stats().exits[static_cast<unsigned>(exit_kind::system_call)]; };
    const auto taken = in_cell([&] {
        io_queue q({.transport = io_transport::uring});
        std::vector<io_future<void>> f(200);
        for (unsigned turn = 0; turn < 2; turn++)  // the first touches memory
            for (auto& x : f) x = q.nop(), x.wait();
        const auto before = exits();
        q.nop().wait();
        const auto one = exits();
        for (auto& x : f) x = q.nop();
        for (auto& x : f) x.wait();
        const auto all = exits();
        long right = 0;
        for (const auto& x : f) right += shown(x) == 0;
        return std::array<std::uint64_t, 3>{one - before, all - one,
                                            static_cast<std::uint64_t>(right)};
    });
    // stats() itself makes none of these.
    CHECK(taken == std::array<std::uint64_t, 3>{1, 1, 200});
}

TEST_CASE("a forked child cannot use its parent's queue, and each operation ends once") {
    const auto answers = same_by_all([](const io_options& o) {
        const pipe_ends p, out, more;
        std::vector<std::string> r;
        auto q = std::make_unique<io_queue>(o);
        std::array<char, 4> room{};
        auto reads = q->read(p.out(), room);
        auto writes = q->link().write(out.in(), std::string("once"));
        q->submit();
        auto queued = q->write(more.in(), std::string("later"));
        const int child = fork();
        if (child == 0) {
            int wrong = 0;
            const auto refuses = [&](auto body) {
                wrong += refused(body) != "made before the fork";
            };
            refuses([&] { q->nop(); });
            refuses([&] { q->submit(); });
            refuses([&] { (void)reads.ready(); });
            refuses([&] { (void)reads.result(); });
            refuses([&] { (void)writes.take(); });
            refuses([&] { reads.cancel(); });
            refuses([&] { q->wait_any(); });
            // What it makes itself works, and the rest can go.
            io_queue own(o);
            wrong += shown(own.write(out.in(), std::string("child"))) != 5;
            { auto dropped = std::move(reads); }
            q.reset();
            _exit(wrong);
        }
        r.push_back(status_of(child));
        (void)!write(p.in(), "abcd", 4);
        r.push_back(std::to_string(shown(reads)));
        r.push_back(writes.take());
        r.push_back(std::to_string(shown(queued)));
        std::array<char, 64> all{};
        const auto n = ::read(out.out(), all.data(), all.size());
        r.push_back(std::string(all.data(), static_cast<std::size_t>(n)));
        return r;
    });
    CHECK(answers == std::vector<std::string>{"exit 0", "4", "once", "5", "childonce"});
}

TEST_CASE("a process exits with operations under way") {
    for (const bool by_return : {false, true}) {
        const auto answers = same_by_all([&](const io_options& o) {
            const pipe_ends p;
            const int child = fork();
            if (child == 0) {
                static std::array<char, 4> room;
                static io_queue q(o);
                static auto reads = q.read(p.out(), room);
                static auto timer = q.timeout(1000s);
                q.submit();
                if (by_return) exit(7);  // ends the queue
                _exit(7);
            }
            return status_of(child);
        });
        CHECK(answers == "exit 7");
    }
}

TEST_CASE("a queue belongs to one thread") {
    const auto answers = same_by_all([](const io_options& o) {
        const pipe_ends p;
        io_queue q(o);
        auto reads = q.read(p.out(), std::string("...."));
        q.submit();
        lines l;
        std::thread other([&] {
            l.push_back(refused([&] { q.nop(); }));
            l.push_back(refused([&] { (void)reads.ready(); }));
            l.push_back(refused([&] { q.wait_any(); }));
        });
        other.join();
        (void)!write(p.in(), "abcd", 4);
        l.push_back(reads.result().value() == 4 ? reads.take() : "no");
        return l;
    });
    CHECK(answers == lines{"of another thread", "of another thread", "of another thread", "abcd"});
}

TEST_CASE("queues of several threads") {
    const auto answers = same_by_all([](const io_options& o) {
        constexpr unsigned threads = 4;
        std::atomic<long> right = 0;
        on_threads(threads, [&](unsigned) {
            const sockets s;
            io_queue q(o);
            for (unsigned turn = 0; turn < 200; turn++) {
                auto got = q.recv(s.out(), std::string(8, '.'));
                auto put = q.send(s.in(), std::to_string(turn));
                right += got.result().value() == put.result().value();
            }
        });
        return right.load();
    });
    CHECK(answers == 800);
}

static std::atomic<int> handled = 0;
static void count_signal(int) {
    handled = handled + 1;
}

TEST_CASE("a signal during a wait") {
    for (const int flags : {0, SA_RESTART}) {
        const auto answers = same_by_all([&](const io_options& o) {
            struct sigaction a {};
            a.sa_handler = count_signal;
            a.sa_flags = flags;
            sigaction(SIGUSR1, &a, nullptr);
            handled = 0;
            const pipe_ends p;
            std::atomic<int> thread = 0;
            long got = 0;
            std::thread reader([&] {
                io_queue q(o);
                auto reads = q.read(p.out(), std::string(4, '.'));
                thread = static_cast<int>(syscall(SYS_gettid));
                got = shown(reads);
            });
            bool right = eventually([&] { return thread != 0 && asleep(thread); });
            syscall(SYS_tgkill, getpid(), thread.load(), SIGUSR1);
            right = right && eventually([] { return handled == 1; });
            right = right && eventually([&] { return asleep(thread); });
            (void)!write(p.in(), "abcd", 4);
            reader.join();
            return std::pair(right, got);
        });
        CHECK(answers == std::pair(true, 4l));
    }
}

namespace {

/// Two fibers and a loop, as small as they can be.
struct fibers : io_scheduler {
    std::uint64_t current() noexcept override { return running; }
    void suspend(time_point) override {
        const auto me = running;
        swapcontext(&contexts[me], &loop);
        running = me;
    }
    void ended(std::uint64_t tag) noexcept override { runnable.push_back(tag); }

    void run(io_queue& queue, std::function<void(unsigned)> body) {
        static fibers* here;
        static std::function<void(unsigned)> what;
        here = this;
        what = std::move(body);
        for (unsigned i : {1u, 2u}) {
            getcontext(&contexts[i]);
            contexts[i].uc_stack = {stacks[i].data(), 0, stacks[i].size()};
            contexts[i].uc_link = &loop;
            makecontext(&contexts[i], reinterpret_cast<void (*)()>(+[](int i_) {
                what(static_cast<unsigned>(i_));
                here->finished++;
            }),
                        1, i);
            runnable.push_back(i);
        }
        while (finished < 2) {
            if (runnable.empty()) {
                idle++;
                queue.wait_any();
                continue;
            }
            running = runnable.front();
            runnable.pop_front();
            swapcontext(&loop, &contexts[running]);
            running = 0;
        }
    }

    ucontext_t contexts[3], loop;
    std::array<std::vector<char>, 3> stacks{std::vector<char>(), std::vector<char>(256 << 10),
                                            std::vector<char>(256 << 10)};
    std::deque<std::uint64_t> runnable;
    std::uint64_t running = 0;
    unsigned finished = 0, idle = 0;
};

}  // namespace

TEST_CASE("fibers wait for operations while others run") {
    const auto answers = same_by_all([](io_options o) {
        fibers f;
        o.scheduler = &f;
        const sockets s;
        io_queue q(o);
        lines l;
        f.run(q, [&](unsigned i) {
            for (unsigned turn = 0; turn < 3; turn++) {
                if (i == 1) {
                    l.push_back(std::to_string(shown(q.recv(s.out(), std::string(8, '.')))));
                    q.send(s.out(), std::string("answer")).wait();
                } else {
                    q.send(s.in(), std::string("ask")).wait();
                    l.push_back(std::to_string(shown(q.recv(s.in(), std::string(8, '.')))));
                }
            }
        });
        return l;
    });
    CHECK(answers == lines{"3", "6", "3", "6", "3", "6"});
}

TEST_CASE("where io_uring is forbidden, plain calls give the same results") {
    for (const int error : {EPERM, ENOSYS, ENOMEM}) {
        const auto probe = [&] {
            const int child = fork();
            if (child == 0) {
                int wrong = !forbid(SYS_io_uring_setup, error);
                wrong += errno_of([] { io_queue q({.transport = io_transport::uring}); }) != error;
                const int before = open_descriptors();
                {
                    io_queue q;
                    const sockets s;
                    wrong += q.transport() != io_transport::plain;
                    wrong += q.transport_reason() !=
                             std::string("io_uring_setup: ") + std::strerror(error);
                    auto got = q.within(10s).recv(s.out(), std::string(8, '.'));
                    auto put = q.send(s.in(), std::string("hello"));
                    wrong +=
                        got.result().value() != 5 || got.take() != "hello..." || shown(put) != 5;
                    auto gone = q.recv(s.out(), std::string(8, '.'));
                    q.submit();
                }
                wrong += open_descriptors() != before;
                const features f = probe_features();
                wrong +=
                    f.io_queue != "plain" || !f.io_queue_reason.ends_with(std::strerror(error));
                _exit(wrong);
            }
            return status_of(child);
        };
        CHECK(same(probe) == "exit 0");
    }
}

TEST_CASE("a kernel thread takes submissions") {
    if (!has_ring()) return;
    const auto answers = same([] {
        const sockets s;
        io_queue q({.transport = io_transport::uring, .entries = 8, .submission_thread = 10ms});
        long right = 0;
        for (unsigned turn = 0; turn < 20; turn++) {
            std::vector<io_future<std::size_t, std::string>> f;
            for (unsigned i = 0; i < 20; i++) f.push_back(q.send(s.in(), std::string("x")));
            auto got = q.recv(s.out(), std::string(20, '.'), MSG_WAITALL);
            for (const auto& x : f) right += shown(x);
            right += shown(got);
        }
        auto cancelled = q.recv(s.out(), std::string(20, '.'));
        q.submit();
        cancelled.cancel();
        return std::pair(right, shown(cancelled));
    });
    CHECK(answers == std::pair(800l, static_cast<long>(-ECANCELED)));
}

TEST_CASE("a queue used wrongly says so") {
    const auto answers = same_by_all([](const io_options& o) {
        lines l;
        for (unsigned entries : {0u, 5000u})
            l.push_back(refused([&] { io_queue q({.entries = entries}); }));
        l.push_back(refused([&] { io_queue q({.submission_thread = -1ms}); }));
        io_queue q(o);
        l.push_back(refused([&] { q.link(); }));
        io_future<int> none;
        l.push_back(refused([&] { (void)none.result(); }));
        l.push_back(refused([&] { none.cancel(); }));
        l.push_back(refused([&] { q.unlinkat(AT_FDCWD, std::string_view("a\0b", 3)); }));
        l.push_back(std::to_string(q.submit()) + std::to_string(q.wait_any()) +
                    std::to_string(q.collect()));
        return l;
    });
    CHECK(answers == lines{"bad argument", "bad argument", "bad argument", "bad argument",
                           "bad argument", "bad argument", "bad argument", "000"});
}

}  // namespace xos::test
