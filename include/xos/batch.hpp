// Many system calls by one crossing.
//
//     xos::batch calls;
//     std::array<char, 512> line;
//     const auto got = calls.read(from, line);       // borrowed: `line` must live until submit()
//     const auto put = calls.write(to, std::move(text));  // owned: a std::string, given back later
//     calls.link().fsync(to);                        // only if all of the text was written
//     calls.submit();
//     use({line.data(), got.result().value()});      // throws if read(2) failed
//     text = put.take();
//     calls.clear();                                 // for the next turn, with the same memory
//
// submit() makes the calls in order, on the calling thread, and returns when all of them have
// ended. Inside, up to 256 of them leave the guest once (docs/batching.md has what that saves).
// Outside, also in a process without a cell, each is an ordinary system call, and the results are
// the same.
//
// A buffer is either borrowed or owned. Borrowed is what a caller passes as an lvalue, or as a
// std::span or another view: it belongs to the caller and must live until submit(). Owned is what
// is moved in: the batch keeps it where it is and gives it back with take(). A temporary container
// that a call would write into or read from after its end therefore either moves in or does not
// compile. Names of files and addresses of sockets are copied.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>
#include <xos/error.hpp>
#include <xos/result.hpp>

namespace xos {

/// Bytes of which the batch can be given ownership.
struct owned_bytes {
    std::unique_ptr<std::byte[]> data;
    std::size_t size = 0;
};

namespace detail {

template <class R>
inline constexpr bool is_literal = std::is_array_v<std::remove_reference_t<R>>&&
    std::same_as<std::remove_extent_t<std::remove_reference_t<R>>, const char>;

/// Contiguous memory that outlives the expression: an lvalue, or a view. The literal "text" is
/// none, because its last byte is not text; std::string_view is.
template <class R>
concept borrowed = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
    std::ranges::borrowed_range<R> && std::is_trivially_copyable_v<std::ranges::range_value_t<R>> &&
    !is_literal<R>;

/// The same, to be written into.
template <class R>
concept borrowed_room =
    borrowed<R> && !std::is_const_v<std::remove_reference_t<std::ranges::range_reference_t<R>>>;

template <class R, class T>
concept borrowed_room_of = borrowed_room<R> && std::same_as<std::ranges::range_value_t<R>, T>;

template <class R, class T>
concept borrowed_array_of = borrowed<R> && std::same_as<std::ranges::range_value_t<R>, T>;

/// An rvalue of a type that a batch can keep.
template <class B>
concept owned = std::same_as<B, std::vector<std::byte>> || std::same_as<B, std::string> ||
    std::same_as<B, owned_bytes>;

template <class A>
concept argument =
    std::integral<A> || std::is_enum_v<A> || std::is_pointer_v<A> || std::is_null_pointer_v<A>;

/// As in kmod/xos_uapi.h.
struct queued_call {
    std::uint64_t number;
    std::uint64_t arguments[6];
    std::int64_t result;
};

inline constexpr std::size_t calls_a_block = 256;

}  // namespace detail

class batch;

/// One call of a batch. Small, and copied freely; refers to the batch, which must outlive it.
template <class T>
class operation {
  public:
    /// What the system call returned: the value, or the errno in the generic category.
    /// ECANCELED: it was not made, because of a call before it (`batch::link`,
    /// `after_error::stop`).
    /// @throws std::system_error not_submitted before submit(), and after clear().
    [[nodiscard]] xos::result<T> result() const;

  protected:
    friend batch;
    operation(batch& b, std::uint32_t index, std::uint32_t generation)
        : batch_(&b), index_(index), generation_(generation) {}

    batch* batch_;
    std::uint32_t index_, generation_;
};

/// One that owns its buffer.
template <class T, detail::owned Buffer>
class owning_operation : public operation<T> {
  public:
    /// Gives the buffer back, as large as it came, also when the call failed or was not made.
    /// @throws std::system_error not_submitted before submit() and after clear(); bad_argument the
    ///         second time.
    [[nodiscard]] Buffer take() const;

  private:
    friend batch;
    owning_operation(operation<T> o, std::uint32_t slot) : operation<T>(o), slot_(slot) {}

    std::uint32_t slot_;
};

/// What submit() does after a call that fails.
enum class after_error : unsigned {
    go_on,  ///< makes the rest
    stop,   ///< makes no more; the rest ends with ECANCELED
};

/// Queued calls, and their results. It belongs to one thread at a time, and can be neither copied
/// nor moved. A forked child has a copy of its own: calls that were queued before the fork are made
/// by each process that submits them.
///
/// Queueing takes no memory but when the batch becomes longer than it ever was, and for buffers and
/// names that are longer than ever. Every function that queues throws std::bad_alloc when there is
/// none. Signal handlers and fault handlers must not use a batch of the code that they interrupt,
/// nor make one, because that allocates.
class batch {
  public:
    batch();
    /// Drops calls that were not submitted, and the buffers that were not taken.
    ~batch();
    batch(const batch&) = delete;
    batch& operator=(const batch&) = delete;

    // ---- reading and writing: the number of bytes, which may be smaller than asked

    template <detail::borrowed_room R>
    operation<std::size_t> read(int fd, R&& into) {
        return bytes(SYS_read, fd, address(into), byte_count(into));
    }
    template <detail::owned B>
    owning_operation<std::size_t, B> read(int fd, B&& into) {
        return keep(std::move(into), SYS_read, fd);
    }
    template <detail::borrowed R>
    operation<std::size_t> write(int fd, R&& from) {
        return bytes(SYS_write, fd, address(from), byte_count(from));
    }
    template <detail::owned B>
    owning_operation<std::size_t, B> write(int fd, B&& from) {
        return keep(std::move(from), SYS_write, fd);
    }
    template <detail::borrowed_room R>
    operation<std::size_t> pread(int fd, R&& into, std::int64_t offset) {
        return bytes(SYS_pread64, fd, address(into), byte_count(into), offset);
    }
    template <detail::owned B>
    owning_operation<std::size_t, B> pread(int fd, B&& into, std::int64_t offset) {
        return keep(std::move(into), SYS_pread64, fd, offset);
    }
    template <detail::borrowed R>
    operation<std::size_t> pwrite(int fd, R&& from, std::int64_t offset) {
        return bytes(SYS_pwrite64, fd, address(from), byte_count(from), offset);
    }
    template <detail::owned B>
    owning_operation<std::size_t, B> pwrite(int fd, B&& from, std::int64_t offset) {
        return keep(std::move(from), SYS_pwrite64, fd, offset);
    }
    /// The array and what it points to are borrowed.
    template <detail::borrowed_array_of<iovec> R>
    operation<std::size_t> readv(int fd, R&& into) {
        return bytes(SYS_readv, fd, address(into), std::ranges::size(into));
    }
    template <detail::borrowed_array_of<iovec> R>
    operation<std::size_t> writev(int fd, R&& from) {
        return bytes(SYS_writev, fd, address(from), std::ranges::size(from));
    }

    // ---- sockets

    template <detail::borrowed_room R>
    operation<std::size_t> recv(int fd, R&& into, int flags = 0) {
        return bytes(SYS_recvfrom, fd, address(into), byte_count(into), flags, 0, 0);
    }
    template <detail::owned B>
    owning_operation<std::size_t, B> recv(int fd, B&& into, int flags = 0) {
        return keep(std::move(into), SYS_recvfrom, fd, flags);
    }
    template <detail::borrowed R>
    operation<std::size_t> send(int fd, R&& from, int flags = 0) {
        return bytes(SYS_sendto, fd, address(from), byte_count(from), flags, 0, 0);
    }
    template <detail::owned B>
    owning_operation<std::size_t, B> send(int fd, B&& from, int flags = 0) {
        return keep(std::move(from), SYS_sendto, fd, flags);
    }
    /// accept4(2) without the peer's address: the new descriptor.
    operation<int> accept(int fd, int flags = SOCK_CLOEXEC) {
        return add<int>(SYS_accept4, fd, nullptr, nullptr, flags);
    }
    /// `to` is a sockaddr_in, sockaddr_un, ...; its first `length` bytes are copied.
    template <class Address>
    requires std::is_trivially_copyable_v<Address> operation<void> connect(
        int fd, const Address& to, socklen_t length = sizeof(Address)) {
        return add<void>(SYS_connect, fd, copy(&to, length), length);
    }

    // ---- files

    /// The new descriptor.
    operation<int> openat(int directory, std::string_view path, int flags, mode_t mode = 0) {
        return add<int>(SYS_openat, directory, copy(path), flags, mode);
    }
    operation<void> close(int fd) { return add<void>(SYS_close, fd); }
    operation<void> fsync(int fd) { return add<void>(SYS_fsync, fd); }
    operation<void> fdatasync(int fd) { return add<void>(SYS_fdatasync, fd); }
    operation<void> fstat(int fd, struct stat& into) { return add<void>(SYS_fstat, fd, &into); }
#ifdef STATX_BASIC_STATS
    operation<void> statx(int directory, std::string_view path, int flags, unsigned mask,
                          struct statx& into) {
        return add<void>(SYS_statx, directory, copy(path), flags, mask, &into);
    }
#endif
    operation<void> unlinkat(int directory, std::string_view path, int flags = 0) {
        return add<void>(SYS_unlinkat, directory, copy(path), flags);
    }
    operation<void> renameat(int from_directory, std::string_view from, int to_directory,
                             std::string_view to) {
        return add<void>(SYS_renameat, from_directory, copy(from), to_directory, copy(to));
    }

    // ---- waiting: the number of descriptors or events that are ready; a negative time has no end

    template <detail::borrowed_room_of<pollfd> R>
    operation<std::size_t> poll(R&& of, std::chrono::milliseconds at_most) {
        return add<std::size_t>(SYS_poll, address(of), std::ranges::size(of),
                                milliseconds(at_most));
    }
    /// `event` is copied.
    operation<void> epoll_ctl(int epoll, int what, int fd, epoll_event event) {
        return add<void>(SYS_epoll_ctl, epoll, what, fd, copy(&event, sizeof event));
    }
    template <detail::borrowed_room_of<epoll_event> R>
    operation<std::size_t> epoll_wait(int epoll, R&& into, std::chrono::milliseconds at_most) {
        return add<std::size_t>(SYS_epoll_wait, epoll, address(into), std::ranges::size(into),
                                milliseconds(at_most));
    }

    /// Any other call. What its arguments point to must live until submit(). A call that libxos
    /// must see alone (docs/syscalls.md), or answers inside, takes a crossing of its own or none.
    /// @throws std::system_error bad_argument for a call that may not return here, or twice: fork,
    ///         vfork, clone, clone3, execve, execveat, exit, exit_group, rt_sigreturn.
    template <detail::argument... Arguments>
    requires(sizeof...(Arguments) <= 6) operation<long> call(long number, Arguments... arguments) {
        if (number != plain_) prepare(number);
        return add<long>(number, arguments...);
    }

    // ---- all of them

    /// The next call is made only if the one before it succeeded, and moved as many bytes as it was
    /// asked to; else it ends with ECANCELED, and so do those linked to it. For recv() any number
    /// of bytes is a success, unless it has MSG_WAITALL. A batch of its own begins a chain: the
    /// first call cannot be linked.
    /// @throws std::system_error bad_argument if no call has been queued since the last submit().
    batch& link();

    /// Makes the calls queued since the last submit(), in order. A signal that arrives meanwhile is
    /// handled between two calls, or interrupts one as it would have outside a batch: EINTR is that
    /// call's result, and the rest is made. Not for a handler that leaves by longjmp(3) or an
    /// exception: then it is unknown which calls were made.
    ///
    /// Call inside, outside and in a host_call(). It is no cancellation point (pthreads(7)).
    /// @return how many calls were made: fewer than queued where calls ended with ECANCELED.
    std::size_t submit(after_error then = after_error::go_on);

    /// Calls since the last clear().
    [[nodiscard]] std::size_t size() const noexcept {
        return count_;
    }
    [[nodiscard]] bool empty() const noexcept {
        return count_ == 0;
    }

    /// Forgets the calls, their results and the buffers that were not taken, and keeps its own
    /// memory for the next ones.
    void clear() noexcept;

  private:
    template <class T>
    friend class operation;
    template <class T, detail::owned Buffer>
    friend class owning_operation;
    struct state;

    template <class R>
    static void* address(R&& range) {
        return const_cast<void*>(static_cast<const volatile void*>(std::ranges::data(range)));
    }
    template <class R>
    static std::size_t byte_count(R&& range) {
        return std::ranges::size(range) * sizeof(std::ranges::range_value_t<R>);
    }
    static int milliseconds(std::chrono::milliseconds t) {
        return t.count() < 0             ? -1
               : t.count() > 0x7fff'ffff ? 0x7fff'ffff
                                         : static_cast<int>(t.count());
    }
    template <class A>
    static std::uint64_t word(A argument) {
        if constexpr (std::is_null_pointer_v<A>)
            return 0;
        else if constexpr (std::is_pointer_v<A>)
            return reinterpret_cast<std::uint64_t>(argument);
        else
            return static_cast<std::uint64_t>(argument);
    }

    template <class T, class... Arguments>
    operation<T> add(long number, Arguments... arguments) {
        if (next_ == end_) [[unlikely]]
            grow();
        *next_++ = {static_cast<std::uint32_t>(number), {word(arguments)...}, 0};
        return {*this, count_++, generation_};
    }
    template <class... Arguments>
    operation<std::size_t> bytes(long number, Arguments... arguments) {
        return add<std::size_t>(number, arguments...);
    }
    template <class B, class... More>
    owning_operation<std::size_t, B> keep(B&& buffer, long number, int fd, More... more) {
        const std::uint32_t slot = own(std::move(buffer));
        const std::span<std::byte> at = owned_at(slot);
        return {bytes(number, fd, at.data(), at.size(), more...), slot};
    }

    void grow();
    void prepare(long number);
    const void* copy(const void* from, std::size_t bytes);
    const char* copy(std::string_view path);
    std::uint32_t own(std::vector<std::byte>&& buffer);
    std::uint32_t own(std::string&& buffer);
    std::uint32_t own(owned_bytes&& buffer);
    std::span<std::byte> owned_at(std::uint32_t slot);
    void take(std::uint32_t slot, std::vector<std::byte>& into);
    void take(std::uint32_t slot, std::string& into);
    void take(std::uint32_t slot, owned_bytes& into);

    [[noreturn]] static void raise_not_submitted();
    std::int64_t result_of(std::uint32_t index, std::uint32_t generation) const {
        if (generation != generation_ || index >= submitted_) [[unlikely]]
            raise_not_submitted();
        return blocks_[index / detail::calls_a_block][index % detail::calls_a_block].result;
    }

    long plain_ = -1;  ///< a number that prepare() need not see again
    detail::queued_call *next_ = nullptr, *end_ = nullptr;
    std::uint32_t count_ = 0, submitted_ = 0, generation_ = 0;
    detail::queued_call** blocks_ = nullptr;
    std::unique_ptr<state> state_;
};

template <class T>
xos::result<T> operation<T>::result() const {
    const std::int64_t r = batch_->result_of(index_, generation_);
    if (r < 0 && r >= -4095) [[unlikely]]
        return std::error_code(static_cast<int>(-r), std::generic_category());
    if constexpr (std::is_void_v<T>)
        return {};
    else
        return static_cast<T>(r);
}

template <class T, detail::owned Buffer>
Buffer owning_operation<T, Buffer>::take() const {
    (void)this->batch_->result_of(this->index_, this->generation_);
    Buffer buffer;
    this->batch_->take(slot_, buffer);
    return buffer;
}

}  // namespace xos

#endif  // C++20
