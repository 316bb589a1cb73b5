#include "worker.hpp"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>

namespace kvd {
namespace {

constexpr std::size_t events_at_once = 256;
constexpr milliseconds forever{-1};

std::uint32_t events_for(waiting_for what) noexcept {
    return what == waiting_for::output ? EPOLLOUT : EPOLLIN;
}

}  // namespace

time_point read_clock() noexcept {
    return std::chrono::time_point_cast<milliseconds>(std::chrono::steady_clock::now());
}

worker::worker(service& host, io way)
    : host_{host},
      epoll_{require(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")},
      wake_{require(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")},
      events_(events_at_once),
      way_{way} {
    watch(wake_.get(), [] {});
}

void worker::watch(int fd, std::function<void()> ready) {
    epoll_event event{.events = EPOLLIN, .data = {.fd = fd}};
    require(::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event), "epoll_ctl: add");
    watched_.push_back({fd, std::move(ready)});
}

void worker::ignore(int fd) {
    if (std::erase_if(watched_, [fd](const watched& w) { return w.fd == fd; }) == 0) return;
    require(::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr), "epoll_ctl: delete");
}

void worker::adopt(unique_fd socket) {
    // A fresh socket is writable: the worker hears of it at once, also when the client is silent.
    // In batches, what a socket waits for never changes: a change would be a call of its own.
    const std::uint32_t both = EPOLLIN | EPOLLOUT;
    epoll_event event{.events = way_ == io::batch ? both | EPOLLET : both,
                      .data = {.fd = socket.get()}};
    // Counted first: the worker may meet, serve and uncount it before epoll_ctl returns here.
    host_.counted.connections.fetch_add(1, std::memory_order_relaxed);
    host_.counted.clients.fetch_add(1, std::memory_order_relaxed);
    const int fd = socket.release();
    if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return;
    host_.counted.clients.fetch_sub(1, std::memory_order_relaxed);
    ::close(fd);
}

void worker::run() {
    milliseconds limit = forever;
    time_point next_tick{};
    while (!stopping_.load(std::memory_order_relaxed)) {
        if (tick_) {
            const time_point now = read_clock();
            if (now >= next_tick) next_tick = now + tick_(now);
            limit = next_tick - now;
        }
        if (way_ == io::batch)
            turn_in_batches(limit);
        else
            turn(limit);
    }
    drain();
}

void worker::turn(milliseconds limit) {
    const int count = wait(limit);
    const time_point now = read_clock();
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = events_[static_cast<std::size_t>(i)];
        dispatch(event.data.fd, event.events, now);
    }
}

void worker::stop() noexcept {
    stopping_.store(true, std::memory_order_relaxed);
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof one);
}

int worker::wait(milliseconds limit) {
    const int count = ::epoll_wait(epoll_.get(), events_.data(), static_cast<int>(events_.size()),
                                   static_cast<int>(limit.count()));
    if (count < 0 && errno == EINTR) return 0;
    return require(count, "epoll_wait");
}

bool worker::handle_watched(int fd) {
    const auto handler = std::ranges::find(watched_, fd, &watched::fd);
    if (handler == watched_.end()) return false;
    const auto ready = handler->ready;  // a copy: it may call watch() or ignore()
    ready();
    return true;
}

worker::client_map::iterator worker::meet(int fd, waiting_for registered) {
    auto talk = std::make_unique<connection>(unique_fd{fd}, host_);
    return clients_.emplace(fd, client{std::move(talk), registered}).first;
}

void worker::dispatch(int fd, std::uint32_t happened, time_point now) {
    if (const auto at = clients_.find(fd); at != clients_.end()) return serve(at, happened, now);
    if (!handle_watched(fd)) serve(meet(fd, waiting_for::output), happened | EPOLLIN, now);
}

void worker::serve(client_map::iterator at, std::uint32_t happened, time_point now) {
    connection& talk = *at->second.talk;
    const bool readable = (happened & EPOLLIN) != 0;
    const bool broken = (happened & (EPOLLERR | EPOLLHUP)) != 0;
    if (broken && !readable) {
        clients_.erase(at);
        return;
    }
    try {
        settle(at, readable ? talk.on_readable(now) : talk.on_writable(now));
    } catch (const std::bad_alloc&) {
        clients_.erase(at);  // one client's demand must not end the others
    }
}

void worker::settle(client_map::iterator at, waiting_for next) {
    client& who = at->second;
    if (next == waiting_for::nothing) {
        clients_.erase(at);
        return;
    }
    if (next == who.registered) return;
    epoll_event event{.events = events_for(next), .data = {.fd = at->first}};
    require(::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, at->first, &event), "epoll_ctl: modify");
    who.registered = next;
}

// ---- io::batch: one crossing sends the replies of the last turn and waits, another one receives.

namespace {

std::ptrdiff_t outcome_of(const xos::operation<std::size_t>& call) {
    const auto result = call.result();
    return result ? static_cast<std::ptrdiff_t>(*result) : -result.error().value();
}

}  // namespace

void worker::turn_in_batches(milliseconds limit) {
    const int count = send_and_wait(limit);
    find_readable(count);
    receive(read_clock());
}

/// Returns the number of events.
int worker::send_and_wait(milliseconds limit) {
    calls_.clear();
    transfers_.clear();
    ended_.clear();
    for (const int fd : replying_) {
        const auto at = clients_.find(fd);
        if (at == clients_.end()) continue;
        const connection& talk = *at->second.talk;
        at->second.replies = false;
        // It may end, or go on, as soon as this is sent.
        if (talk.is_ending() || talk.has_backlog()) limit = milliseconds{0};
        transfers_.push_back({fd, calls_.send(fd, talk.unsent(), MSG_NOSIGNAL), 0});
    }
    replying_.clear();
    if (!readable_.empty()) limit = milliseconds{0};
    const auto ready = calls_.epoll_wait(epoll_.get(), events_, limit);
    calls_.submit();

    const time_point now = read_clock();
    for (const transfer& t : transfers_) {
        const auto at = clients_.find(t.fd);
        connection& talk = *at->second.talk;
        const std::ptrdiff_t sent = outcome_of(t.call);
        if (!talk.sent(sent)) {
            end(at);
        } else if (talk.unsent().empty()) {
            carry_out(at, now);
        } else if (sent != -EAGAIN) {  // after that, the socket's edge says when there is room
            at->second.replies = true;
            replying_.push_back(t.fd);
        }
    }
    const std::ptrdiff_t count = outcome_of(ready);
    if (count == -EINTR) return 0;
    if (count < 0)
        throw std::system_error{static_cast<int>(-count), std::generic_category(), "epoll_wait"};
    return static_cast<int>(count);
}

void worker::end(client_map::iterator at) {
    ended_.push_back(at->first);
    clients_.erase(at);
}

/// Adds the readable connections to those that had more to read than they had room for.
void worker::find_readable(int count) {
    for (int i = 0; i < count; ++i) {
        const epoll_event& event = events_[static_cast<std::size_t>(i)];
        const int fd = event.data.fd;
        auto at = clients_.find(fd);
        if (at == clients_.end()) {
            if (std::ranges::find(ended_, fd) != ended_.end() || handle_watched(fd)) continue;
            at = meet(fd, waiting_for::input);
        }
        client& who = at->second;
        const bool readable = (event.events & EPOLLIN) != 0;
        if ((event.events & (EPOLLERR | EPOLLHUP)) != 0 && !readable) {
            end(at);
            continue;
        }
        if (!who.talk->unsent().empty() && !who.replies) {
            who.replies = true;
            replying_.push_back(fd);
        }
        who.hungry = who.hungry || readable;
        list(who);
    }
}

/// Lists a connection to be received from, unless its replies have to go first.
void worker::list(client& who) {
    if (!who.hungry || who.listed || who.talk->has_backlog()) return;
    who.listed = true;
    readable_.push_back(who.talk->fd());
}

void worker::receive(time_point now) {
    calls_.clear();
    transfers_.clear();
    for (const int fd : readable_) {
        const auto at = clients_.find(fd);
        if (at == clients_.end()) continue;
        at->second.listed = at->second.hungry = false;
        try {
            if (const auto room = at->second.talk->room(); !room.empty())
                transfers_.push_back({fd, calls_.recv(fd, room), room.size()});
        } catch (const std::bad_alloc&) {
            end(at);  // one client's demand must not end the others
        }
    }
    readable_.clear();
    calls_.submit();
    for (const transfer& t : transfers_) {
        const auto at = clients_.find(t.fd);
        const std::ptrdiff_t got = outcome_of(t.call);
        if (!at->second.talk->received(got)) {
            end(at);
            continue;
        }
        at->second.hungry = got == static_cast<std::ptrdiff_t>(t.room) || got == -EINTR;
        carry_out(at, now);
    }
}

void worker::carry_out(client_map::iterator at, time_point now) {
    client& who = at->second;
    try {
        who.talk->carry_out(now);
    } catch (const std::bad_alloc&) {
        end(at);
        return;
    }
    if (who.talk->unsent().empty() && who.talk->is_ending()) {
        end(at);
        return;
    }
    list(who);
    if (who.talk->unsent().empty() || who.replies) return;
    who.replies = true;
    replying_.push_back(at->first);
}

void worker::drain() {
    for (const watched& w : watched_) ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, w.fd, nullptr);
    watched_.clear();

    const time_point deadline = read_clock() + drain_limit;
    // What the sockets have received counts as in flight: one more look at each of them.
    for (auto at = clients_.begin(); at != clients_.end();) {
        const auto current = at++;
        serve(current, EPOLLIN, read_clock());
    }
    for (;;) {
        std::erase_if(clients_,
                      [](const auto& c) { return c.second.registered == waiting_for::input; });
        const time_point now = read_clock();
        if (clients_.empty() || now >= deadline) break;
        const int count = wait(deadline - now);
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events_[static_cast<std::size_t>(i)];
            const auto at = clients_.find(event.data.fd);
            if (at != clients_.end()) serve(at, event.events, now);
        }
    }
    clients_.clear();
}

}  // namespace kvd
