// Many system calls by one crossing, inside and outside: the same results.
#include <netinet/in.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <numeric>
#include <xos/batch.hpp>
#include <xos/stats.hpp>
#include <xos/syscall.hpp>

#include "libxos/api/call_blocks.hpp"
#include "tests/guest/operations.hpp"
#include "tests/guest/support.hpp"

namespace xos::test {

namespace {

// ---- what compiles

template <class Buffer>
concept readable_into = requires(batch& b, Buffer&& buffer) {
    b.read(0, std::forward<Buffer>(buffer));
    b.pread(0, std::forward<Buffer>(buffer), 0);
    b.recv(0, std::forward<Buffer>(buffer));
};
template <class Buffer>
concept writable_from = requires(batch& b, Buffer&& buffer) {
    b.write(0, std::forward<Buffer>(buffer));
    b.pwrite(0, std::forward<Buffer>(buffer), 0);
    b.send(0, std::forward<Buffer>(buffer));
};
template <class Buffer>
concept gives_back = requires(batch& b, Buffer&& buffer) {
    { b.read(0, std::forward<Buffer>(buffer)).take() } -> std::same_as<Buffer>;
    { b.write(0, std::forward<Buffer>(buffer)).take() } -> std::same_as<Buffer>;
};

// Borrowed: what outlives the expression.
static_assert(readable_into<std::vector<char>&> && writable_from<std::vector<char>&>);
static_assert(readable_into<std::array<int, 4>&> && writable_from<const std::array<int, 4>&>);
static_assert(readable_into<char (&)[8]> && writable_from<char (&)[8]>);
static_assert(readable_into<std::span<char>> && writable_from<std::span<const std::byte>>);
static_assert(readable_into<std::string&> && writable_from<const std::string&>);
static_assert(writable_from<std::string_view>);
// Temporary containers would dangle, unless they move in.
static_assert(!readable_into<std::vector<char>> && !writable_from<std::vector<char>>);
static_assert(!readable_into<std::array<char, 4>> && !writable_from<std::array<char, 4>>);
static_assert(!writable_from<const std::string>);
static_assert(gives_back<std::string> && gives_back<std::vector<std::byte>>);
static_assert(gives_back<owned_bytes>);
static_assert(!gives_back<std::string&>, "borrowed: nothing to give back");
// Constant memory is not read into; the last byte of a literal is not text; only plain bytes move.
static_assert(!readable_into<const std::vector<char>&> && !readable_into<std::string_view>);
static_assert(!writable_from<const char (&)[6]>);
static_assert(!writable_from<std::vector<std::string>&> && !writable_from<std::vector<bool>&>);

template <class Events>
concept fills_events = requires(batch& b, Events&& events) {
    b.epoll_wait(0, std::forward<Events>(events), std::chrono::milliseconds(0));
};
static_assert(fills_events<std::array<epoll_event, 2>&> && !fills_events<std::array<int, 2>&>);
static_assert(!fills_events<std::array<epoll_event, 2>>);

template <class Status>
concept fills_status = requires(batch& b, Status&& status) {
    b.fstat(0, std::forward<Status>(status));
};
static_assert(fills_status<struct stat&> && !fills_status<struct stat>);
static_assert(!std::copyable<batch> && !std::movable<batch>);

// ---- helpers

std::atomic<int> handled = 0;
void handler(int) {
    handled = handled + 1;
}

/// A thread, `inside` or not, reads from an empty pipe by a batch and gets a signal.
std::vector<long> signalled_read(bool is_inside, int flags) {
    struct sigaction a {};
    a.sa_handler = handler;
    a.sa_flags = flags;
    sigaction(SIGUSR1, &a, nullptr);
    handled = 0;
    const pipe_ends p;
    char byte = 0;
    std::vector<long> answers;
    std::atomic<int> thread = 0;
    std::thread reader([&] {
        if (is_inside) enter();
        batch b;
        const int event = eventfd(0, EFD_CLOEXEC);
        const std::uint64_t one = 1;
        std::uint64_t sum = 0;
        const auto before = b.write(event, std::span(&one, 1));
        const auto waits = b.read(p.out(), std::span(&byte, 1));
        const auto after = b.write(event, std::span(&one, 1));
        const auto total = b.read(event, std::span(&sum, 1));
        thread = static_cast<int>(syscall(SYS_gettid));
        b.submit();
        answers = {shown(before), shown(waits), shown(after), shown(total), static_cast<long>(sum)};
        ::close(event);
        if (is_inside) leave();
    });
    eventually([&] { return thread != 0 && asleep(thread); });
    syscall(SYS_tgkill, getpid(), thread.load(), SIGUSR1);
    eventually([] { return handled == 1; });
    if (flags & SA_RESTART) (void)!write(p.in(), "x", 1);
    reader.join();
    answers.push_back(handled);
    return answers;
}

}  // namespace

TEST_CASE("a batch of the calls on files") {
    const auto answers = same([] {
        char name[] = "/tmp/batch-XXXXXX";
        const int directory = mkdtemp(name) ? ::open(name, O_DIRECTORY | O_CLOEXEC) : -1;
        batch b;
        const auto opened = b.openat(directory, "a", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        b.submit();
        const int fd = opened.result().value();
        std::array<char, 4> begin{}, parts{};
        std::string end(8, '.');
        std::array<iovec, 2> from{iovec{const_cast<char*>("gh"), 2}, {const_cast<char*>("ij"), 2}},
            into{iovec{parts.data() + 2, 2}, {parts.data(), 2}};
        struct stat status {};
        struct statx more {};
        std::vector<long> r;
        const auto note = [&](auto... o) { (r.push_back(shown(o)), ...); };
        const auto w = b.write(fd, std::string_view("abcd"));
        const auto pw = b.pwrite(fd, std::string("ef"), 4);
        const auto seek = b.call(SYS_lseek, fd, 6, SEEK_SET);
        const auto wv = b.writev(fd, from);
        const auto syncs = b.fsync(fd);
        const auto data_sync = b.fdatasync(fd);
        const auto pr = b.pread(fd, begin, 0);
        const auto longer = b.pread(fd, std::move(end), 6);
        const auto back = b.call(SYS_lseek, fd, 2, SEEK_SET);
        const auto rv = b.readv(fd, into);
        const auto st = b.fstat(fd, status);
        const auto renamed = b.renameat(directory, "a", directory, "b");
        const auto sx = b.statx(directory, "b", 0, STATX_SIZE, more);
        const auto gone = b.unlinkat(directory, "a");
        const auto unlinked = b.unlinkat(directory, "b");
        const auto closed = b.close(fd);
        const auto twice = b.close(fd);
        r.push_back(static_cast<long>(b.submit()));
        note(w, pw, seek, wv, syncs, data_sync, pr, longer, back, rv, st, renamed, sx, gone,
             unlinked, closed, twice);
        r.push_back(status.st_size);
        r.push_back(static_cast<long>(more.stx_size));
        rmdir(name);
        ::close(directory);
        return std::pair(r, std::string(begin.begin(), begin.end()) + longer.take() +
                                std::string(parts.begin(), parts.end()) + pw.take());
    });
    CHECK(answers.first == std::vector<long>{17, 4, 2, 6, 4,       0, 0, 4,      4,  2,
                                             4,  0, 0, 0, -ENOENT, 0, 0, -EBADF, 10, 10});
    CHECK(answers.second == "abcdghij....efcdef");
}

TEST_CASE("a batch of the calls on sockets") {
    const auto answers = same([] {
        const int server = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                  client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                  epoll = epoll_create1(EPOLL_CLOEXEC);
        sockaddr_in at{};
        at.sin_family = AF_INET;
        at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t length = sizeof at;
        std::vector<long> r;
        // A machine may be without a loopback interface: then both sides see the same errors.
        r.push_back(bind(server, reinterpret_cast<sockaddr*>(&at), length));
        r.push_back(listen(server, 1));
        getsockname(server, reinterpret_cast<sockaddr*>(&at), &length);
        batch b;
        const auto connected = b.connect(client, at);
        at = {};  // has been copied
        const auto accepted = b.accept(server);
        b.submit();
        r.push_back(shown(connected));
        r.push_back(shown(accepted) >= 0);
        const int peer = accepted.result().value_or(-1);
        std::array<epoll_event, 4> events{};
        std::array<pollfd, 1> polled{pollfd{client, POLLIN, 0}};
        std::vector<std::byte> room(16);
        std::array<char, 2> more{};
        const auto watched = b.epoll_ctl(epoll, EPOLL_CTL_ADD, peer, {EPOLLIN, {.u32 = 7}});
        const auto sent = b.send(client, std::string_view("hello"));
        const auto ready = b.epoll_wait(epoll, events, std::chrono::seconds(5));
        const auto got = b.recv(peer, std::move(room));
        const auto empty = b.recv(peer, more, MSG_DONTWAIT);
        const auto idle = b.poll(polled, std::chrono::milliseconds(0));
        const auto answered = b.send(peer, std::string("ok"), MSG_NOSIGNAL);
        const auto polled_in = b.poll(polled, std::chrono::milliseconds(-1));
        const auto last = b.recv(client, more);
        b.submit();
        for (long n : {shown(watched), shown(sent), shown(ready), shown(got), shown(empty),
                       shown(idle), shown(answered), shown(polled_in), shown(last)})
            r.push_back(n);
        r.push_back(events[0].data.u32);
        room = got.take();
        r.push_back(static_cast<long>(room.size()));
        r.push_back(static_cast<long>(room[4]));
        for (int fd : {server, client, epoll, peer}) ::close(fd);
        return r;
    });
    CHECK(answers.size() == 16);
}

TEST_CASE("bad descriptors and bad memory in a batch") {
    const auto answers = same([] {
        const pipe_ends p;
        batch b;
        std::array<char, 4> room{};
        const std::span<char> nowhere(reinterpret_cast<char*>(0x1000), 4);
        const std::array o{b.read(-1, room),         b.write(12345, room),  b.write(p.in(), room),
                           b.read(p.out(), nowhere), b.read(p.out(), room), b.send(p.in(), room),
                           b.write(p.in(), nowhere)};
        b.submit();
        std::vector<long> r;
        for (const auto& x : o) r.push_back(shown(x));
        return r;
    });
    CHECK(answers == std::vector<long>{-EBADF, -EBADF, 4, -EFAULT, 4, -ENOTSOCK, -EFAULT});
}

TEST_CASE("a batch that stops at the first error") {
    const auto answers = same([] {
        const pipe_ends p;
        batch b;
        const auto first = b.write(p.in(), std::string_view("a"));
        const auto bad = b.close(-1);
        const auto second = b.write(p.in(), std::string("b"));
        std::vector<long> r{static_cast<long>(b.submit(after_error::stop)), shown(first),
                            shown(bad), shown(second), second.take() == "b"};
        // What is queued later is made.
        std::array<char, 4> room{};
        const auto read = b.read(p.out(), room);
        r.push_back(static_cast<long>(b.submit()));
        r.push_back(shown(read));
        return r;
    });
    CHECK(answers == std::vector<long>{2, 1, -EBADF, -ECANCELED, 1, 1, 1});
}

TEST_CASE("a linked call is made if the one before it succeeded in full") {
    const auto answers = same([] {
        const pipe_ends p;
        batch b;
        std::array<char, 8> room{};
        std::array<char, 2> two{};
        std::vector<operation<std::size_t>> o;
        std::vector<operation<void>> v;
        o.push_back(b.write(p.in(), std::string_view("abcd")));
        o.push_back(b.link().read(p.out(), two));                // full
        o.push_back(b.link().read(p.out(), room));               // short: two of eight
        o.push_back(b.link().write(p.in(), two));                // cancelled
        v.push_back(b.link().close(-1));                         // and so on
        o.push_back(b.write(p.in(), std::string_view("efgh")));  // not linked
        v.push_back(b.close(-1));                                // fails alone
        v.push_back(b.fsync(-1));                                // a chain that fails at once
        o.push_back(b.link().read(p.out(), two));                // cancelled
        o.push_back(b.read(p.out(), two));
        v.push_back(b.link().close(12345));
        v.push_back(b.link().close(12346));  // cancelled
        o.push_back(b.read(p.out(), two));
        std::vector<long> r{static_cast<long>(b.submit())};
        for (const auto& x : o) r.push_back(shown(x));
        for (const auto& x : v) r.push_back(shown(x));
        return r;
    });
    CHECK(answers == std::vector<long>{9, 4, 2, 2, -ECANCELED, 4, -ECANCELED, 2, 2, -ECANCELED,
                                       -EBADF, -EBADF, -EBADF, -ECANCELED});
}

TEST_CASE("a chain of more calls than a vector has") {
    const auto answers = same([] {
        const pipe_ends p;
        batch b;
        std::array<char, 1> byte{};
        std::vector<operation<std::size_t>> o;
        constexpr unsigned many = 300;
        for (unsigned i = 0; i < many; i++) {
            if (i) b.link();
            o.push_back(i % 2 ? b.read(p.out(), byte) : b.write(p.in(), std::string_view("x")));
        }
        std::vector<operation<void>> v;
        for (unsigned i = 0; i < many; i++) {
            if (i) b.link();
            v.push_back(b.close(i == 290 ? -1 : dup(p.in())));
        }
        std::vector<long> r{static_cast<long>(b.submit())};
        r.push_back(std::accumulate(o.begin(), o.end(), 0l,
                                    [](long sum, const auto& x) { return sum + shown(x); }));
        for (unsigned i : {0u, 289u, 290u, 291u, 299u}) r.push_back(shown(v[i]));
        return r;
    });
    CHECK(answers == std::vector<long>{591, 300, 0, 0, -EBADF, -ECANCELED, -ECANCELED});
}

TEST_CASE("1,000 calls of a batch cross four times") {
    ensure_cell();
    const auto exits = [] { return stats().exits[static_cast<unsigned>(exit_kind::system_call)]; };
    constexpr std::size_t many = 1000;
    const auto run = [&](batch& b) {
        std::vector<operation<long>> o;
        for (std::size_t i = 0; i < many; i++) o.push_back(b.call(SYS_getppid));
        b.submit();
        long right = 0;
        for (const auto& x : o) right += x.result().value() == getppid();
        return right;
    };
    std::uint64_t taken = 0;
    const auto right = in_cell([&] {
        batch b;
        std::vector<operation<long>> o;
        for (std::size_t i = 0; i < many; i++) o.push_back(b.call(SYS_getppid));
        b.submit();
        b.clear();
        for (std::size_t i = 0; i < many; i++) b.call(SYS_getppid);
        const auto before = exits();
        b.submit();
        taken = exits() - before;
        b.clear();
        return run(b);
    });
    CHECK(right == static_cast<long>(many));
    if (wanted_transport() != transport::module) CHECK(taken == 4);
}

TEST_CASE("a batch whose thread gets a signal") {
    const auto expected = std::vector<long>{8, -EINTR, 8, 8, 2, 1};
    CHECK(signalled_read(false, 0) == expected);
    ensure_cell();
    CHECK(signalled_read(true, 0) == expected);
}

TEST_CASE("a batch whose thread gets a signal with SA_RESTART") {
    const auto expected = std::vector<long>{8, 1, 8, 8, 2, 1};
    CHECK(signalled_read(false, SA_RESTART) == expected);
    ensure_cell();
    CHECK(signalled_read(true, SA_RESTART) == expected);
}

TEST_CASE("no call of a batch is lost or made twice while signals arrive") {
    ensure_cell();
    struct sigaction a {};
    a.sa_handler = handler;
    sigaction(SIGUSR1, &a, nullptr);
    const int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    constexpr std::uint64_t turns = 50, calls = 100;
    std::atomic<int> thread = 0;
    std::atomic<bool> done = false;
    std::uint64_t made = 0;
    std::thread writer([&] {
        scoped_entry inside;
        batch b;
        const std::uint64_t one = 1;
        thread = static_cast<int>(syscall(SYS_gettid));
        for (std::uint64_t turn = 0; turn < turns || handled < 20; turn++) {
            for (std::uint64_t i = 0; i < calls; i++) b.write(event, std::span(&one, 1));
            b.submit();
            b.clear();
            made += calls;
        }
        done = true;
    });
    eventually([&] { return thread != 0; });
    while (!done) {
        syscall(SYS_tgkill, getpid(), thread.load(), SIGUSR1);
        std::this_thread::yield();
    }
    writer.join();
    std::uint64_t sum = 0;
    CHECK(read(event, &sum, sizeof sum) == 8);
    CHECK(sum == made);
    close(event);
}

TEST_CASE("a forked child has a batch of its own") {
    const auto answers = same([] {
        const pipe_ends p;
        batch b;
        const auto o = b.write(p.in(), std::string("x"));
        const int child = fork();
        if (child == 0) {
            b.submit();
            _exit(o.result().value() == 1 && o.take() == "x" ? 0 : 1);
        }
        const auto status = status_of(child);
        b.submit();
        std::array<char, 4> room{};
        const auto both = b.read(p.out(), room);
        b.submit();
        return std::tuple(status, shown(o), shown(both), o.take());
    });
    CHECK(answers == std::tuple(std::string("exit 0"), 1l, 2l, std::string("x")));
}

TEST_CASE("buffers that a batch owns come back") {
    const auto answers = same([] {
        const pipe_ends p;
        batch b;
        std::string small = "small";  // in the object itself
        std::vector<std::byte> room(64);
        const auto* const where = room.data();
        owned_bytes bytes{std::make_unique<std::byte[]>(5), 5};
        const auto wrote = b.write(p.in(), std::move(small));
        std::vector<owning_operation<std::size_t, std::string>> others;
        for (int i = 0; i < 100; i++) others.push_back(b.write(-1, std::to_string(i)));
        const auto read = b.read(p.out(), std::move(room));
        const auto failed = b.read(-1, std::move(bytes));
        b.submit();
        room = read.take();
        lines l{wrote.take(),
                std::to_string(room.data() == where),
                std::to_string(room.size()),
                std::string(reinterpret_cast<char*>(room.data()), read.result().value()),
                std::to_string(failed.take().size),
                others[99].take(),
                refused([&] { (void)others[99].take(); })};
        return l;
    });
    CHECK(answers == lines{"small", "1", "64", "small", "5", "99", "bad argument"});
}

TEST_CASE("a batch used wrongly says so") {
    const auto answers = same([] {
        batch b;
        lines l{refused([&] { b.link(); })};
        const auto o = b.call(SYS_getppid);
        const auto owned = b.write(-1, std::string("x"));
        l.push_back(refused([&] { (void)o.result(); }));
        l.push_back(refused([&] { (void)owned.take(); }));
        b.submit();
        l.push_back(refused([&] { (void)o.result(); }));
        l.push_back(refused([&] { (void)owned.result().value(); }));
        l.push_back(refused([&] { b.link(); }));
        b.clear();
        l.push_back(refused([&] { (void)o.result(); }));
        for (long number : {SYS_fork, SYS_execve, SYS_exit_group})
            l.push_back(refused([&] { b.call(number); }));
        l.push_back(refused([&] { b.openat(AT_FDCWD, std::string_view("a\0b", 3), O_RDONLY); }));
        l.push_back(std::to_string(b.size()));
        return l;
    });
    CHECK(answers == lines{"bad argument", "not submitted", "not submitted", "nothing",
                           "Bad file descriptor", "bad argument", "not submitted", "bad argument",
                           "bad argument", "bad argument", "bad argument", "0"});
}

[[gnu::target("general-regs-only")]] static long forty_two(long, long, long, long, long, long) {
    return 42;
}

TEST_CASE("calls that are libxos's own in a batch") {
    const auto answers = same([] {
        const pipe_ends p;
        batch b;
        const auto before = b.write(p.in(), std::string_view("a"));
        const auto mapped = b.call(SYS_mmap, nullptr, 4096, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        const auto after = b.link().write(p.in(), std::string_view("b"));
        const auto signal = b.call(SYS_tgkill, getpid(), static_cast<int>(syscall(SYS_gettid)), 0);
        const auto unknown = b.call(100'000);
        std::vector<long> r{static_cast<long>(b.submit()), shown(before), shown(after),
                            shown(signal), shown(unknown)};
        auto* const at = reinterpret_cast<char*>(mapped.result().value());
        at[4095] = 1;
        b.clear();
        const auto unmapped = b.call(SYS_munmap, at, 4096);
        b.submit();
        r.push_back(shown(unmapped));
        return r;
    });
    CHECK(answers == std::vector<long>{5, 1, 1, 0, -ENOSYS, 0});
    answer_locally(SYS_getppid, forty_two);
    CHECK(in_cell([] {
              batch b;
              const auto o = b.call(SYS_getppid);
              b.submit();
              return o.result().value();
          }) == 42);
    answer_locally(SYS_getppid, nullptr);
}

TEST_CASE("the array of a batch lies where vectors are made in place") {
    batch early;
    early.call(SYS_getppid);
    ensure_cell();
    auto* const block = api::allocate_call_block();
    CHECK(api::is_in_place(block));
    api::free_call_block(block);
    CHECK(api::allocate_call_block() == block);
    api::free_call_block(block);
    // One that is older than the cell goes on, and moves with clear().
    early.submit();
    early.clear();
    const auto o = early.call(SYS_getppid);
    CHECK(in_cell([&] { return early.submit(); }) == 1);
    CHECK(o.result().value() == getppid());
}

TEST_CASE("more batches than have their arrays in place") {
    ensure_cell();
    constexpr unsigned threads = 4;
    std::atomic<unsigned> right = 0, in_heap = 0;
    on_threads(threads, [&](unsigned) {
        scoped_entry inside;
        for (unsigned turn = 0; turn < 20; turn++) {
            std::vector<detail::queued_call*> blocks;
            for (unsigned i = 0; i < 50; i++) {
                blocks.push_back(api::allocate_call_block());
                if (!api::is_in_place(blocks.back())) in_heap++;
                blocks.back()->number = reinterpret_cast<std::uint64_t>(blocks.back());
            }
            batch b;
            const auto o = b.call(SYS_getppid);
            b.submit();
            right += o.result().value() == getppid();
            for (auto* block : blocks) {
                right += block->number == reinterpret_cast<std::uint64_t>(block);
                api::free_call_block(block);
            }
        }
    });
    CHECK(right == threads * 20 * 51);
    // Alone, one thread again has all that it wants.
    auto* const block = api::allocate_call_block();
    CHECK(api::is_in_place(block));
    api::free_call_block(block);
    CHECK(in_heap < threads * 20 * 50);
}

TEST_CASE("longer batches use their memory again") {
    const auto answers = same([] {
        batch b;
        long right = 0;
        std::string detour = "/";
        for (unsigned i = 0; i < 1500; i++) detour += "./";
        for (unsigned turn = 0; turn < 5; turn++) {
            std::vector<operation<int>> o;
            for (unsigned i = 0; i < 40; i++)
                o.push_back(
                    b.openat(AT_FDCWD, detour.substr(0, 1 + i * 70) + "tmp", O_CREAT | O_EXCL));
            for (unsigned i = 0; i < 600; i++) o.push_back(b.openat(-1, "relative", O_RDONLY));
            b.submit();
            for (unsigned i = 0; i < 640; i++) right += shown(o[i]) == (i < 40 ? -EEXIST : -EBADF);
            b.clear();
        }
        return right;
    });
    CHECK(answers == 5 * 640);
}

}  // namespace xos::test
