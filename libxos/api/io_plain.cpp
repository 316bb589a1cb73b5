// The engine without io_uring: every operation is tried without waiting, and what has to wait is
// tried again when poll(2) says so.
//
// An operation that waits holds a descriptor of its own to the file, because the program may close
// the one that it named, or use the number for something else. Those on the same file share it.
//
// Calls on files that cannot be polled (fsync, openat, a disk) are made at once and hold the thread
// up. So does one on a descriptor without a non-blocking form, if somebody else takes away what
// poll(2) has seen: reading from a terminal, accept4(2).
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <list>

#include "libxos/api/errors.hpp"
#include "libxos/api/io_core.hpp"
#include "libxos/base/raw_syscall.hpp"

namespace xos::api {

/// A file that operations wait for.
struct kept_file {
    int named;  ///< the descriptor by which operations named it
    int fd;     ///< a copy
    dev_t device;
    ino_t inode;
    long flags;
    std::uint64_t round;  ///< in which the name was seen to be this file's
    unsigned users = 0;
    std::size_t polled = 0;  ///< its place in what is given to poll(2)
};

namespace {

using base::as_long;
using base::raw_syscall;
using answer = std::optional<long>;  ///< none: it has to wait

long arg(std::uint64_t value) {
    return static_cast<long>(value);
}

short poll_now(int fd, short events) {
    pollfd p{fd, events, 0};
    const timespec none{};
    return raw_syscall(__NR_ppoll, as_long(&p), 1, as_long(&none), 0, 8) > 0 ? p.revents : short{0};
}

bool is_socket_option_set(int fd, int option) {
    int value = 0;
    socklen_t length = sizeof value;
    return raw_syscall(__NR_getsockopt, fd, SOL_SOCKET, option, as_long(&value),
                       as_long(&length)) == 0 &&
           value;
}

class plain_engine final : public io_engine {
  public:
    explicit plain_engine(detail::io_core& core) : core_(core) {}
    ~plain_engine() override {
        for (const kept_file& f : files_) raw_syscall(__NR_close, f.fd);
    }

    void push(std::span<io_slot* const> chains) override {
        for (io_slot* const slot : chains) slot->parts = 1;
        // Looked for first: the slots of those that end are used again.
        std::vector<io_slot*> heads;
        for (io_slot* const slot : chains) {
            if (!slot->before) heads.push_back(slot);
        }
        round_++;
        for (io_slot* const head : heads) begin(head);
        round_++;
    }

    void cancel(io_slot& slot) override {
        io_slot* head = &slot;
        while (head->before) head = head->before;
        if (head->place >= waiting_.size() || waiting_[head->place] != head) return;
        waiting_[head->place] = nullptr;
        waiting_count_--;
        end(*head, moved_or(*head, -ECANCELED));
    }

    void flush() override {}
    void look() override { turn(io_deadline::min()); }
    bool wait(io_deadline deadline) override { return turn(deadline); }
    io_transport transport() const noexcept override { return io_transport::plain; }

  private:
    // ---- one operation

    /// And those linked to it, as long as they need not wait.
    void begin(io_slot* slot) {
        while (slot) {
            const auto now = std::chrono::steady_clock::now();
            const auto limit = slot->request.what == io_code::timeout
                                   ? std::optional(std::chrono::seconds(slot->time.seconds) +
                                                   std::chrono::nanoseconds(slot->time.nanoseconds))
                                   : slot->limit;
            slot->end = limit && *limit < no_deadline - now ? now + *limit : no_deadline;
            answer a = attempt(*slot);
            if (!a) a = keep(*slot);
            if (!a) return wait_for(*slot);
            slot = finish(*slot, *a);
        }
    }

    /// Returns the next one of its chain, which is to begin.
    io_slot* finish(io_slot& slot, long result) {
        io_slot* const next = slot.after;
        const bool failed =
            result < 0 || static_cast<std::size_t>(result) < full_transfer(slot.request);
        if (next && failed) {
            std::vector<io_slot*> rest;
            for (io_slot* s = next; s; s = s->after) rest.push_back(s);
            let_go(slot);
            core_.report(slot, io_part::operation, result);
            for (io_slot* const s : rest) core_.report(*s, io_part::operation, -ECANCELED);
            return nullptr;
        }
        let_go(slot);
        core_.report(slot, io_part::operation, result);
        return next;
    }

    void end(io_slot& slot, long result) { begin(finish(slot, result)); }

    answer attempt(io_slot& s) {
        const detail::io_request& r = s.request;
        const int fd = s.file ? s.file->fd : r.fd;
        const auto call = [](long number, auto... a) -> answer {
            return raw_syscall(number, static_cast<long>(a)...);
        };
        switch (r.what) {
            case io_code::nop:
                return 0;
            case io_code::timeout:
                return std::nullopt;
            case io_code::fsync:
                return call(r.flags ? __NR_fdatasync : __NR_fsync, fd);
            case io_code::close:
                round_++;  // another file may get the number
                return call(__NR_close, fd);
            case io_code::shutdown:
                return call(__NR_shutdown, fd, r.length);
            case io_code::openat:
                return call(__NR_openat, fd, arg(r.address), r.flags, r.length);
            case io_code::statx:
                return call(__NR_statx, fd, arg(r.address), r.flags, r.length, arg(r.offset));
            case io_code::unlinkat:
                return call(__NR_unlinkat, fd, arg(r.address), r.flags);
            case io_code::renameat:
                return call(__NR_renameat, fd, arg(r.address), static_cast<int>(r.length),
                            arg(r.offset));
            case io_code::poll:
                return poll(s, fd);
            case io_code::accept:
                return accept(s, fd);
            case io_code::connect:
                return connect(s, fd);
            case io_code::recv:
            case io_code::send:
                return transfer(s, fd);
            case io_code::read:
            case io_code::write: {
                const iovec whole{reinterpret_cast<void*>(r.address), r.length};
                const bool writes = r.what == io_code::write;
                s.events = writes ? POLLOUT : POLLIN;
                return read_or_write(s, fd, {&whole, 1}, writes);
            }
            case io_code::readv:
            case io_code::writev: {
                const bool writes = r.what == io_code::writev;
                s.events = writes ? POLLOUT : POLLIN;
                return read_or_write(s, fd, {reinterpret_cast<const iovec*>(r.address), r.length},
                                     writes);
            }
        }
        return -EINVAL;
    }

    static answer poll(io_slot& s, int fd) {
        s.events = static_cast<short>(s.request.flags);
        const short seen = poll_now(fd, s.events);
        if (seen & POLLNVAL) return -EBADF;
        return seen ? answer(seen) : std::nullopt;
    }

    static answer accept(io_slot& s, int fd) {
        s.events = POLLIN;
        // Elsewhere it fails at once.
        if (is_socket_option_set(fd, SO_ACCEPTCONN) && !poll_now(fd, POLLIN)) return std::nullopt;
        const long r = raw_syscall(__NR_accept4, fd, 0, 0, s.request.flags);
        return r == -EAGAIN || r == -EINTR ? std::nullopt : answer(r);
    }

    static answer connect(io_slot& s, int fd) {
        s.events = POLLOUT;
        if (s.connecting) {
            if (!poll_now(fd, POLLOUT)) return std::nullopt;
            int error = 0;
            socklen_t length = sizeof error;
            raw_syscall(__NR_getsockopt, fd, SOL_SOCKET, SO_ERROR, as_long(&error),
                        as_long(&length));
            return -error;
        }
        const long flags = raw_syscall(__NR_fcntl, fd, F_GETFL);
        if (flags < 0) return flags;
        const bool blocks = !(flags & O_NONBLOCK);
        if (blocks) raw_syscall(__NR_fcntl, fd, F_SETFL, flags | O_NONBLOCK);
        const long r = raw_syscall(__NR_connect, fd, arg(s.request.address), arg(s.request.offset));
        if (blocks) raw_syscall(__NR_fcntl, fd, F_SETFL, flags);
        // The queue of a UNIX socket is full, and nothing tells when it is not.
        s.retries = r == -EAGAIN;
        s.connecting = r == -EINPROGRESS;
        return s.retries || s.connecting ? std::nullopt : answer(r);
    }

    static answer transfer(io_slot& s, int fd) {
        const detail::io_request& r = s.request;
        const bool sends = r.what == io_code::send;
        s.events = sends ? POLLOUT : POLLIN;
        const bool all = r.flags & MSG_WAITALL && !(r.flags & MSG_PEEK);
        for (;;) {
            const long moved =
                raw_syscall(sends ? __NR_sendto : __NR_recvfrom, fd, arg(r.address + s.moved),
                            arg(r.length - s.moved), r.flags | MSG_DONTWAIT);
            if (moved == -EINTR) continue;
            if (moved == -EAGAIN) {
                if (!(r.flags & MSG_DONTWAIT)) return std::nullopt;
                return moved_or(s, moved);
            }
            if (moved < 0) return moved_or(s, moved);
            s.moved += static_cast<std::size_t>(moved);
            if (moved == 0 || !all || s.moved >= r.length || !is_stream(fd))
                return static_cast<long>(s.moved);
        }
    }

    static bool is_stream(int fd) {
        int type = 0;
        socklen_t length = sizeof type;
        raw_syscall(__NR_getsockopt, fd, SOL_SOCKET, SO_TYPE, as_long(&type), as_long(&length));
        return type == SOCK_STREAM;
    }

    static answer read_or_write(const io_slot& s, int fd, std::span<const iovec> parts,
                                bool writes) {
        const auto call = [&](std::span<const iovec> p, long flags) {
            // Linux takes the offset in two halves, of which the first has all of it here.
            const auto made = [&](std::uint64_t offset) {
                return raw_syscall(writes ? __NR_pwritev2 : __NR_preadv2, fd, as_long(p.data()),
                                   static_cast<long>(p.size()), arg(offset), 0, flags);
            };
            const long r = made(s.request.offset);
            return r == -ESPIPE ? made(~std::uint64_t{0}) : r;
        };
        const auto unless_busy = [](long r) {
            return r == -EAGAIN || r == -EINTR ? std::nullopt : answer(r);
        };
        struct stat status {};
        if (const long r = raw_syscall(__NR_fstat, fd, as_long(&status)); r < 0) return r;
        if (S_ISREG(status.st_mode) || S_ISBLK(status.st_mode) || S_ISDIR(status.st_mode))
            return call(parts, 0);
        if (S_ISSOCK(status.st_mode)) {
            const auto is_empty = [](const iovec& p) { return p.iov_len == 0; };
            if (!writes && std::ranges::all_of(parts, is_empty)) return 0;  // as read(2) has it
            msghdr message{};
            message.msg_iov = const_cast<iovec*>(parts.data());
            message.msg_iovlen = parts.size();
            return unless_busy(raw_syscall(writes ? __NR_sendmsg : __NR_recvmsg, fd,
                                           as_long(&message), MSG_DONTWAIT));
        }
        if (const long r = call(parts, RWF_NOWAIT); r != -EOPNOTSUPP) return unless_busy(r);
        // No form of it that does not wait.
        if (!poll_now(fd, s.events)) return std::nullopt;
        if (!writes || !S_ISFIFO(status.st_mode)) return unless_busy(call(parts, 0));
        iovec some{};  // more might wait for a reader
        for (const iovec& p : parts) {
            some = {p.iov_base, std::min<std::size_t>(p.iov_len, PIPE_BUF)};
            if (p.iov_len) break;
        }
        return unless_busy(call({&some, 1}, 0));
    }

    // ---- what waits

    void close_gaps() {
        std::size_t count = 0;
        for (io_slot* const slot : waiting_) {
            if (!slot) continue;
            slot->place = count;
            waiting_[count++] = slot;
        }
        waiting_.resize(count);
    }

    void wait_for(io_slot& slot) {
        slot.place = waiting_.size();
        waiting_.push_back(&slot);
        waiting_count_++;
    }

    /// An answer if it cannot wait.
    answer keep(io_slot& slot) {
        if (slot.request.what == io_code::timeout) return std::nullopt;
        // Several that begin together find the same file.
        auto at = std::ranges::find_if(files_, [&](const kept_file& f) {
            return f.named == slot.request.fd && f.round == round_;
        });
        if (at == files_.end()) {
            struct stat status {};
            if (const long r = raw_syscall(__NR_fstat, slot.request.fd, as_long(&status)); r < 0)
                return r;
            // The ends of a pipe differ only in these.
            const long flags =
                S_ISSOCK(status.st_mode) ? 0 : raw_syscall(__NR_fcntl, slot.request.fd, F_GETFL);
            at = std::ranges::find_if(files_, [&](const kept_file& f) {
                return f.named == slot.request.fd && f.device == status.st_dev &&
                       f.inode == status.st_ino && (f.flags ^ flags) % (O_ACCMODE + 1) == 0;
            });
            if (at == files_.end()) {
                const long copy = raw_syscall(__NR_fcntl, slot.request.fd, F_DUPFD_CLOEXEC, 0);
                if (copy < 0) return copy;
                files_.push_front({slot.request.fd, static_cast<int>(copy), status.st_dev,
                                   status.st_ino, flags, round_});
                at = files_.begin();
            }
            at->round = round_;
        }
        at->users++;
        slot.file = &*at;
        return std::nullopt;
    }

    void let_go(io_slot& slot) {
        kept_file* const file = std::exchange(slot.file, nullptr);
        if (!file || --file->users) return;
        raw_syscall(__NR_close, file->fd);
        files_.remove_if([&](const kept_file& f) { return &f == file; });
    }

    /// One round; whether anything has ended.
    bool turn(io_deadline until) {
        if (!waiting_count_) return false;
        polled_.clear();
        for (kept_file& f : files_) {
            f.polled = polled_.size();
            polled_.push_back({f.fd, 0, 0});
        }
        bool retries = false;
        io_deadline first = until;
        close_gaps();
        for (const io_slot* s : waiting_) {
            if (s->file && !s->retries) polled_[s->file->polled].events |= s->events;
            retries = retries || s->retries;
            first = std::min(first, s->end);
        }
        auto at_most = first == io_deadline::min() ? std::chrono::nanoseconds(0) : remaining(first);
        if (retries)
            at_most = std::min<std::chrono::nanoseconds>(at_most, std::chrono::milliseconds(1));
        kernel_time time = kernel_time_of(at_most);
        const bool ends = first != no_deadline || retries;
        const long ready =
            raw_syscall(__NR_ppoll, as_long(polled_.data()), static_cast<long>(polled_.size()),
                        ends ? as_long(&time) : 0, 0, 8);
        if (ready == -EINTR) return false;
        if (ready < 0)
            throw std::system_error(static_cast<int>(-ready), std::generic_category(), "ppoll");

        std::vector<io_slot*> looked_at;
        looked_at.swap(waiting_);
        waiting_count_ = 0;
        std::vector<std::pair<io_slot*, long>> ended;
        const auto now = std::chrono::steady_clock::now();
        for (io_slot* const s : looked_at) {
            answer a;
            if (s->retries || is_ready(*s)) a = attempt(*s);
            if (!a && now >= s->end)
                a = s->request.what == io_code::timeout ? 0 : moved_or(*s, -ETIMEDOUT);
            if (a)
                ended.emplace_back(s, *a);
            else
                wait_for(*s);
        }
        for (const auto& [slot, result] : ended) end(*slot, result);
        return !ended.empty() || retries;
    }

    bool is_ready(const io_slot& s) const {
        constexpr short always = POLLERR | POLLHUP | POLLNVAL;
        return s.file && polled_[s.file->polled].revents & (s.events | always);
    }

    /// What was moved before is not lost.
    static long moved_or(const io_slot& s, long error) {
        return s.moved ? static_cast<long>(s.moved) : error;
    }

    detail::io_core& core_;
    std::vector<io_slot*> waiting_;  ///< null where one was cancelled
    std::size_t waiting_count_ = 0;
    std::list<kept_file> files_;
    std::uint64_t round_ = 0;
    std::vector<pollfd> polled_;
};

}  // namespace

std::unique_ptr<io_engine> make_plain_engine(detail::io_core& core) {
    return std::make_unique<plain_engine>(core);
}

}  // namespace xos::api
