#include "worker.hpp"

#include <poll.h>
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
    // With operations under way, it is needed for this hand-over only.
    std::uint32_t events = EPOLLIN | EPOLLOUT;
    if (way_ == io::batch) events |= EPOLLET;
    if (way_ == io::uring) events |= EPOLLONESHOT;
    epoll_event event{.events = events, .data = {.fd = socket.get()}};
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
    if (way_ == io::uring) {
        queue_.emplace();
        await_set();
    }
    while (!stopping_.load(std::memory_order_relaxed)) {
        if (tick_) {
            const time_point now = read_clock();
            if (now >= next_tick) next_tick = now + tick_(now);
            limit = next_tick - now;
        }
        switch (way_) {
            case io::epoll:
                turn(limit);
                break;
            case io::batch:
                turn_in_batches(limit);
                break;
            case io::uring:
                turn_under_way(limit);
                break;
        }
    }
    drain();
    set_is_ready_ = {};
    queue_.reset();
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

template <class Call>
std::ptrdiff_t outcome_of(const Call& call) {
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

// ---- io::uring: one crossing begins what the last turn has prepared and waits for what ends next.

namespace {

constexpr std::uint64_t set_tag = ~std::uint64_t{0};

/// What has ended on a connection.
std::uint64_t tag_of(int fd, bool sending) {
    return static_cast<std::uint64_t>(fd) * 2 + (sending ? 1 : 0);
}

}  // namespace

void worker::turn_under_way(milliseconds limit) {
    if (limit < milliseconds{0})
        queue_->wait_any();
    else
        queue_->wait_any_for(limit);
    const time_point now = read_clock();
    news_.being_read.swap(news_.tags);
    for (const std::uint64_t tag : news_.being_read) {
        if (tag == set_tag) {
            look_at_set(now);
            continue;
        }
        // One that has ended in this turn may have left its number to another.
        const auto at = clients_.find(static_cast<int>(tag / 2));
        if (at == clients_.end()) continue;
        const auto& call = tag % 2 ? at->second.sending : at->second.receiving;
        if (!call.valid() || !call.ready()) continue;
        if (tag % 2)
            finish_sending(at, now);
        else
            finish_receiving(at, now);
    }
    news_.being_read.clear();
}

void worker::await_set() {
    set_is_ready_ = queue_->poll(epoll_.get(), POLLIN);
    set_is_ready_.notify(news_, set_tag);
}

void worker::look_at_set(time_point now) {
    const int count = wait(milliseconds{0});
    for (int i = 0; i < count; ++i) {
        const int fd = events_[static_cast<std::size_t>(i)].data.fd;
        if (!handle_watched(fd)) begin(meet(fd, waiting_for::input), now);
    }
    await_set();
}

void worker::finish_sending(client_map::iterator at, time_point now) {
    client& who = at->second;
    const std::ptrdiff_t sent = outcome_of(who.sending);
    who.sending = {};
    if (!who.talk->sent(sent)) return static_cast<void>(clients_.erase(at));
    if (!who.receiving.valid()) begin(at, now);
}

void worker::finish_receiving(client_map::iterator at, time_point now) {
    client& who = at->second;
    const std::ptrdiff_t got = outcome_of(who.receiving);
    who.receiving = {};
    if (!who.talk->received(got)) return static_cast<void>(clients_.erase(at));
    begin(at, now);
}

/// Carries out what the connection has received, and queues what it needs next: the replies, and
/// behind them the next requests.
void worker::begin(client_map::iterator at, time_point now) {
    client& who = at->second;
    connection& talk = *who.talk;
    try {
        talk.carry_out(now);
        if (talk.unsent().empty() && talk.is_ending()) {
            clients_.erase(at);
            return;
        }
        const auto room = talk.has_backlog() ? std::span<char>{} : talk.room();
        const bool replies = !talk.unsent().empty();
        if (replies) {
            who.sending = queue_->send(talk.fd(), talk.unsent());
            who.sending.notify(news_, tag_of(talk.fd(), true));
        }
        if (room.empty()) return;
        if (replies) queue_->link();
        who.receiving = queue_->recv(talk.fd(), room);
        who.receiving.notify(news_, tag_of(talk.fd(), false));
    } catch (const std::bad_alloc&) {
        clients_.erase(at);  // one client's demand must not end the others
    }
}

/// Ends what is under way on a connection, and keeps what has been moved.
void worker::call_back(client& who) {
    for (auto* call : {&who.sending, &who.receiving}) {
        if (!call->valid()) continue;
        call->cancel();
        const std::ptrdiff_t moved = outcome_of(*call);
        if (moved > 0)
            static_cast<void>(call == &who.sending ? who.talk->sent(moved)
                                                   : who.talk->received(moved));
        *call = {};
    }
}

void worker::drain() {
    for (auto& [fd, who] : clients_) call_back(who);
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
