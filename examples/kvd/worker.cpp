#include "worker.hpp"

#include <sys/eventfd.h>

#include <algorithm>
#include <new>

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

worker::worker(service& host)
    : host_{host},
      epoll_{require(::epoll_create1(EPOLL_CLOEXEC), "epoll_create1")},
      wake_{require(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")},
      events_(events_at_once) {
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
    epoll_event event{.events = EPOLLIN | EPOLLOUT, .data = {.fd = socket.get()}};
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
        const int count = wait(limit);
        const time_point now = read_clock();
        for (int i = 0; i < count; ++i) {
            const epoll_event& event = events_[static_cast<std::size_t>(i)];
            dispatch(event.data.fd, event.events, now);
        }
    }
    drain();
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

void worker::dispatch(int fd, std::uint32_t happened, time_point now) {
    if (const auto at = clients_.find(fd); at != clients_.end()) return serve(at, happened, now);

    const auto handler = std::ranges::find(watched_, fd, &watched::fd);
    if (handler != watched_.end()) {
        const auto ready = handler->ready;  // a copy: it may call watch() or ignore()
        return ready();
    }
    auto talk = std::make_unique<connection>(unique_fd{fd}, host_);
    const auto adopted = clients_.emplace(fd, client{std::move(talk), waiting_for::output}).first;
    serve(adopted, happened | EPOLLIN, now);
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
