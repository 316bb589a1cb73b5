// Operations that go on while the thread does something else.
//
//     xos::io_queue queue;
//     auto got = queue.recv(in, std::string(4096, '\0'));       // owned: moved in, given back
//     auto put = queue.within(50ms).send(out, text);            // borrowed: `text` must stay
//     auto kept = queue.write(file, std::move(record));
//     auto safe = queue.link().fsync(file);                     // once all of it is written
//     queue.submit();                                           // all four by one crossing
//     work();
//     const auto size = got.result().value();                   // waits; throws if recv(2) failed
//     const std::string room = got.take();
//
// An operation begins with submit(), or with the first wait. It ends on its own: Linux carries it
// out by io_uring, and where io_uring is missing or forbidden, libxos does by plain calls and
// poll(2), with the same results (`transport()`, docs/batching.md). The same inside and outside.
//
// Nothing writes to a buffer that is gone. A buffer that is moved in lives until the operation has
// ended, whatever becomes of the future. A future of a borrowed buffer cancels the operation and
// waits for its end when it is destroyed, so declare it after the buffer. Temporaries do not
// compile. Names of files and addresses of sockets are copied.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>
#include <xos/batch.hpp>
#include <xos/error.hpp>
#include <xos/result.hpp>

namespace xos {

/// How an io_queue reaches Linux.
enum class io_transport : unsigned {
    automatic,  ///< io_uring where it can be used, plain calls elsewhere
    uring,      ///< io_uring, or an exception that says why not
    plain,      ///< plain calls and poll(2), made by submit() and by waiting
};

/// "automatic", "io_uring", "plain".
[[nodiscard]] const char* name(io_transport t) noexcept;

/// Is told when operations have ended.
class io_listener {
  public:
    /// The operation with this tag (`io_handle::notify`) has ended. Called by the queue's thread
    /// within a function of the queue or of a future. It may queue operations; it must not submit,
    /// cancel, wait, nor destroy a future that would.
    virtual void ended(std::uint64_t tag) noexcept = 0;

  protected:
    ~io_listener() = default;
};

/// Lets something smaller than a thread wait: a fiber. Where a queue has one, a wait calls
/// suspend() until the operation has ended, and somebody else, such as the scheduler when no fiber
/// can run, calls io_queue::wait_any().
class io_scheduler : public io_listener {
  public:
    using time_point = std::chrono::steady_clock::time_point;
    /// The tag of whoever calls; ended() gets it, to make it runnable. 0: let the thread wait.
    virtual std::uint64_t current() noexcept = 0;
    /// Lets others run until ended(current()), or `deadline`. May return early.
    virtual void suspend(time_point deadline) = 0;

  protected:
    ~io_scheduler() = default;
};

struct io_options {
    io_transport transport = io_transport::automatic;
    /// Operations that one crossing carries, and the length of the longest chain (`link`); rounded
    /// up to a power of two. More may be under way. 1 to 4096.
    unsigned entries = 256;
    /// Waits with this in place of the thread. It must outlive the queue.
    io_scheduler* scheduler = nullptr;
    /// A kernel thread takes operations without a crossing (IORING_SETUP_SQPOLL), and spins for so
    /// long after the last one. It costs a processor meanwhile. 0: no such thread.
    std::chrono::milliseconds submission_thread{0};
};

namespace detail {

/// The operations, by their numbers in io_uring.
enum class io_code : std::uint8_t {
    nop = 0,
    readv = 1,
    writev = 2,
    fsync = 3,
    poll = 6,
    timeout = 11,
    accept = 13,
    connect = 16,
    openat = 18,
    close = 19,
    statx = 21,
    read = 22,
    write = 23,
    send = 26,
    recv = 27,
    shutdown = 34,
    renameat = 35,
    unlinkat = 36,
};

/// The fields have the meaning that io_uring gives them for the operation.
struct io_request {
    io_code what = io_code::nop;
    int fd = -1;
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    std::uint64_t offset = 0;
    std::uint32_t flags = 0;
};

struct io_slot;
class io_core;

struct no_buffer {};
struct borrowed_buffer {};

}  // namespace detail

/// What all futures of operations have. It can be moved. It belongs to the thread of its queue. The
/// queue may end before it.
class io_handle {
  public:
    /// Of no operation: only assignment and destruction.
    io_handle() = default;
    io_handle(io_handle&& other) noexcept : slot_(std::exchange(other.slot_, nullptr)) {}
    io_handle(const io_handle&) = delete;
    io_handle& operator=(const io_handle&) = delete;

    /// Whether it is of an operation.
    [[nodiscard]] bool valid() const noexcept { return slot_ != nullptr; }
    /// Whether the operation has ended. Does not wait, and crosses only if Linux asks for it.
    /// @throws std::system_error made_before_fork, other_thread, bad_argument if not valid().
    [[nodiscard]] bool ready() const;
    /// Submits what is queued, and waits until the operation has ended. Goes on after a signal.
    /// @throws std::system_error as ready().
    void wait() const;
    /// The same with an end; whether the operation has ended. The operation goes on if not.
    bool wait_until(std::chrono::steady_clock::time_point deadline) const;
    bool wait_for(std::chrono::nanoseconds at_most) const {
        return wait_until(std::chrono::steady_clock::now() + at_most);
    }
    /// Asks Linux, with the next submit() or wait, to end the operation. Its result is ECANCELED if
    /// that came in time; otherwise it ends as if nothing had been asked. Operations that are linked to it end with ECANCELED, too.
    /// One that still waits for those before it in its chain can only be ended with these.
    void cancel() const;
    /// Calls `listener.ended(tag)` when the operation ends; at once if it has. The listener must
    /// live until then. Nobody is told of the end of an operation whose future is gone.
    void notify(io_listener& listener, std::uint64_t tag) const;

  protected:
    friend class io_queue;
    explicit io_handle(detail::io_slot* slot) noexcept : slot_(slot) {}
    ~io_handle() = default;
    [[nodiscard]] std::int64_t value() const;  ///< waits
    void drop() noexcept;                      ///< lets the operation go on
    void end() noexcept;                       ///< cancels it and waits
    void give_back(std::vector<std::byte>& into) const;
    void give_back(std::string& into) const;
    void give_back(owned_bytes& into) const;

    detail::io_slot* slot_ = nullptr;
};

/// The result of an operation that may still be under way. `Buffer` is the type of the buffer that
/// the operation owns, or says that it has none, or that it borrows one.
template <class T, class Buffer = detail::no_buffer>
class io_future : public io_handle {
    static constexpr bool borrows = std::same_as<Buffer, detail::borrowed_buffer>;

  public:
    io_future() = default;
    io_future(io_future&&) noexcept = default;
    io_future& operator=(io_future&& other) noexcept {
        if (this == &other) return *this;
        reset();
        slot_ = std::exchange(other.slot_, nullptr);
        return *this;
    }
    /// One that borrows a buffer first cancels the operation and waits for its end. Others let the
    /// operation go on.
    ~io_future() { reset(); }

    /// Waits, and returns what the system call would have returned: the value, or the errno in the
    /// generic category. ECANCELED: it was cancelled, or not begun because of one that it is linked
    /// to. ETIMEDOUT: it did not end within its time (`io_queue::within`).
    /// @throws std::system_error as ready().
    [[nodiscard]] xos::result<T> result() const {
        const std::int64_t r = value();
        if (r < 0) [[unlikely]]
            return std::error_code(static_cast<int>(-r), std::generic_category());
        if constexpr (std::is_void_v<T>)
            return {};
        else
            return static_cast<T>(r);
    }

    /// Waits, and gives the buffer back, as large as it came, also after a failure.
    /// @throws std::system_error bad_argument the second time, or as ready().
    [[nodiscard]] Buffer take() const requires detail::owned<Buffer> {
        Buffer buffer;
        give_back(buffer);
        return buffer;
    }

  private:
    friend class io_queue;
    explicit io_future(detail::io_slot* slot) noexcept : io_handle(slot) {}
    void reset() noexcept {
        if constexpr (borrows)
            end();
        else
            drop();
    }
};

/// The future of an operation on a buffer that belongs to somebody else.
template <class T>
using borrowing_io_future = io_future<T, detail::borrowed_buffer>;

/// Operations under way, of one thread: the one that makes the queue. It can be neither copied nor
/// moved. Signal handlers and fault handlers must not use it.
///
/// Every function throws std::system_error other_thread on another thread, and made_before_fork in
/// a forked child: what is under way ends in the parent, once. A child makes a queue of its own, and
/// what it has of this one can only be destroyed. Functions that queue also throw std::bad_alloc.
///
/// A descriptor may be closed as soon as an operation on it has begun; the operation goes on.
/// Operations wait also on descriptors that are O_NONBLOCK.
class io_queue {
    template <class T>
    using borrowing = borrowing_io_future<T>;
    using code = detail::io_code;

  public:
    /// @throws std::system_error bad_argument; no_memory or no_descriptors for what any queue
    ///         needs; where `options.transport` is uring, Linux's errno if io_uring cannot be used.
    explicit io_queue(const io_options& options = {});
    /// Forgets what was not submitted, cancels the rest and waits for its end.
    ~io_queue();
    io_queue(const io_queue&) = delete;
    io_queue& operator=(const io_queue&) = delete;

    // ---- reading and writing: the number of bytes, which may be smaller than asked

    template <detail::borrowed_room R>
    [[nodiscard]] borrowing<std::size_t> read(int fd, R&& into) {
        return bytes(code::read, fd, into);
    }
    template <detail::owned B>
    io_future<std::size_t, B> read(int fd, B&& into) {
        return keep(code::read, fd, std::move(into));
    }
    template <detail::borrowed R>
    [[nodiscard]] borrowing<std::size_t> write(int fd, R&& from) {
        return bytes(code::write, fd, from);
    }
    template <detail::owned B>
    io_future<std::size_t, B> write(int fd, B&& from) {
        return keep(code::write, fd, std::move(from));
    }
    /// On a descriptor without a position, such as a pipe, the offset is ignored.
    template <detail::borrowed_room R>
    [[nodiscard]] borrowing<std::size_t> pread(int fd, R&& into, std::int64_t offset) {
        return bytes(code::read, fd, into, at(offset));
    }
    template <detail::owned B>
    io_future<std::size_t, B> pread(int fd, B&& into, std::int64_t offset) {
        return keep(code::read, fd, std::move(into), at(offset));
    }
    template <detail::borrowed R>
    [[nodiscard]] borrowing<std::size_t> pwrite(int fd, R&& from, std::int64_t offset) {
        return bytes(code::write, fd, from, at(offset));
    }
    template <detail::owned B>
    io_future<std::size_t, B> pwrite(int fd, B&& from, std::int64_t offset) {
        return keep(code::write, fd, std::move(from), at(offset));
    }
    /// The array and what it points to are borrowed.
    template <detail::borrowed_array_of<iovec> R>
    [[nodiscard]] borrowing<std::size_t> readv(int fd, R&& into) {
        return borrowing<std::size_t>(add({code::readv, fd, address(into), count(into), here}));
    }
    template <detail::borrowed_array_of<iovec> R>
    [[nodiscard]] borrowing<std::size_t> writev(int fd, R&& from) {
        return borrowing<std::size_t>(add({code::writev, fd, address(from), count(from), here}));
    }

    // ---- sockets

    template <detail::borrowed_room R>
    [[nodiscard]] borrowing<std::size_t> recv(int fd, R&& into, int flags = 0) {
        return bytes(code::recv, fd, into, 0, flags);
    }
    template <detail::owned B>
    io_future<std::size_t, B> recv(int fd, B&& into, int flags = 0) {
        return keep(code::recv, fd, std::move(into), 0, flags);
    }
    /// Goes on until everything is sent, as send(2) does on a descriptor that is not O_NONBLOCK,
    /// and raises no SIGPIPE.
    template <detail::borrowed R>
    [[nodiscard]] borrowing<std::size_t> send(int fd, R&& from, int flags = 0) {
        return bytes(code::send, fd, from, 0, flags | send_flags);
    }
    template <detail::owned B>
    io_future<std::size_t, B> send(int fd, B&& from, int flags = 0) {
        return keep(code::send, fd, std::move(from), 0, flags | send_flags);
    }
    /// accept4(2) without the peer's address: the new descriptor. It is lost, and stays open, if
    /// the future is dropped.
    [[nodiscard]] io_future<int> accept(int fd, int flags = SOCK_CLOEXEC) {
        return io_future<int>(add({code::accept, fd, 0, 0, 0, static_cast<unsigned>(flags)}));
    }
    /// `to` is a sockaddr_in, sockaddr_un, ...; its first `length` bytes are copied.
    template <class Address>
    requires std::is_trivially_copyable_v<Address> io_future<void> connect(
        int fd, const Address& to, socklen_t length = sizeof(Address)) {
        return io_future<void>(add({code::connect, fd, 0, 0, length}, &to, length));
    }
    io_future<void> shutdown(int fd, int how) {
        return io_future<void>(add({code::shutdown, fd, 0, static_cast<unsigned>(how)}));
    }

    // ---- files

    /// The new descriptor. It is lost, and stays open, if the future is dropped.
    [[nodiscard]] io_future<int> openat(int directory, std::string_view path, int flags,
                                        mode_t mode = 0) {
        return io_future<int>(
            add({code::openat, directory, 0, mode, 0, static_cast<unsigned>(flags)}, path));
    }
    io_future<void> close(int fd) { return io_future<void>(add({code::close, fd})); }
    io_future<void> fsync(int fd) { return io_future<void>(add({code::fsync, fd})); }
    io_future<void> fdatasync(int fd) {
        return io_future<void>(add({code::fsync, fd, 0, 0, 0, 1}));
    }
#ifdef STATX_BASIC_STATS
    [[nodiscard]] borrowing<void> statx(int directory, std::string_view path, int flags,
                                        unsigned mask, struct statx& into) {
        return borrowing<void>(
            add({code::statx, directory, 0, mask, reinterpret_cast<std::uint64_t>(&into),
                 static_cast<unsigned>(flags)},
                path));
    }
#endif
    io_future<void> unlinkat(int directory, std::string_view path, int flags = 0) {
        return io_future<void>(
            add({code::unlinkat, directory, 0, 0, 0, static_cast<unsigned>(flags)}, path));
    }
    io_future<void> renameat(int from_directory, std::string_view from, int to_directory,
                             std::string_view to) {
        return io_future<void>(add(
            {code::renameat, from_directory, 0, static_cast<unsigned>(to_directory)}, from, to));
    }

    // ---- waiting

    /// What of `events` and of POLLERR and POLLHUP is there, as in pollfd::revents.
    io_future<short> poll(int fd, short events) {
        return io_future<short>(
            add({code::poll, fd, 0, 0, 0, static_cast<unsigned short>(events)}));
    }
    /// Succeeds after that time.
    io_future<void> timeout(std::chrono::nanoseconds after);
    io_future<void> nop() {
        return io_future<void>(add({}));
    }

    // ---- what belongs to the next operation

    /// It begins when the one before it has succeeded, and moved as many bytes as it was asked to;
    /// else it ends with ECANCELED, and so do those linked to it. For recv() any number of bytes is
    /// a success, unless it has MSG_WAITALL.
    /// @throws std::system_error bad_argument if no operation has been queued since the last
    ///         submit(). The function that queues throws it if the chain becomes longer than
    ///         `io_options::entries`, where an operation with a deadline counts twice.
    io_queue& link();
    /// It ends with ETIMEDOUT unless it ends by itself so long after it has begun.
    io_queue& within(std::chrono::nanoseconds at_most);

    // ---- all of them

    /// Begins the operations that are queued; how many.
    std::size_t submit();
    /// Learns which operations have ended, without waiting; how many.
    std::size_t collect();
    /// Submits, and lets the thread wait until an operation has ended, if one is under way, which
    /// this call learns of; how many have. Also where there is an io_scheduler. A signal ends the
    /// wait early.
    std::size_t wait_any();
    std::size_t wait_any_until(std::chrono::steady_clock::time_point deadline);
    std::size_t wait_any_for(std::chrono::nanoseconds at_most) {
        return wait_any_until(std::chrono::steady_clock::now() + at_most);
    }

    /// Operations that have begun and are not known to have ended.
    [[nodiscard]] std::size_t under_way() const noexcept;
    /// `uring` or `plain`.
    [[nodiscard]] io_transport transport() const noexcept;
    /// Why it is plain calls, as the rest of a sentence for people; empty if it is io_uring.
    [[nodiscard]] std::string transport_reason() const;

  private:
    static constexpr std::uint64_t here = ~std::uint64_t{0};  ///< at the descriptor's position
    static constexpr std::uint32_t most_bytes = 0x7ffff000;   ///< as read(2) moves at most
    static constexpr int send_flags = MSG_WAITALL | MSG_NOSIGNAL;

    template <class R>
    static std::uint64_t address(R&& range) {
        return reinterpret_cast<std::uint64_t>(std::ranges::data(range));
    }
    template <class R>
    static std::uint32_t count(R&& range) {
        return static_cast<std::uint32_t>(std::min<std::size_t>(std::ranges::size(range), 4096));
    }
    static std::uint32_t limited(std::size_t bytes) {
        return static_cast<std::uint32_t>(std::min<std::size_t>(bytes, most_bytes));
    }
    static std::uint64_t at(std::int64_t offset);

    template <class R>
    borrowing<std::size_t> bytes(code what, int fd, R&& range, std::uint64_t offset = here,
                                 int flags = 0) {
        const std::size_t size = std::ranges::size(range) * sizeof(std::ranges::range_value_t<R>);
        return borrowing<std::size_t>(
            add({what, fd, address(range), limited(size), offset, static_cast<unsigned>(flags)}));
    }
    template <class B>
    io_future<std::size_t, B> keep(code what, int fd, B&& buffer, std::uint64_t offset = here,
                                   int flags = 0) {
        return io_future<std::size_t, B>(
            add({what, fd, 0, 0, offset, static_cast<unsigned>(flags)}, std::move(buffer)));
    }

    detail::io_slot* add(const detail::io_request& wanted);
    detail::io_slot* add(const detail::io_request& wanted, std::vector<std::byte>&& buffer);
    detail::io_slot* add(const detail::io_request& wanted, std::string&& buffer);
    detail::io_slot* add(const detail::io_request& wanted, owned_bytes&& buffer);
    /// With what `address` is to point to.
    detail::io_slot* add(const detail::io_request& wanted, const void* copied, std::size_t bytes);
    detail::io_slot* add(const detail::io_request& wanted, std::string_view path);
    /// And `offset`.
    detail::io_slot* add(const detail::io_request& wanted, std::string_view path,
                         std::string_view second);

    detail::io_core* core_;
};

}  // namespace xos

#endif  // C++20
