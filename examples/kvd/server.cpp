#include "server.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/socket.h>

#include <stdexcept>
#include <thread>

namespace kvd {
namespace {

constexpr int backlog = 1024;
constexpr int accepted_at_once = 64;
constexpr std::size_t expired_at_once = 200;
constexpr milliseconds usual_tick{100};
constexpr milliseconds busy_tick{1};

sigset_t termination_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    return set;
}

void set_option(int fd, int level, int option, const char* what) {
    const int on = 1;
    require(::setsockopt(fd, level, option, &on, sizeof on), what);
}

struct socket_address {
    sockaddr_storage bytes{};
    socklen_t length = 0;
};

/// A numeric address only: a server does not look names up to know where it listens.
socket_address parse(const std::string& text, std::uint16_t port) {
    socket_address result;
    auto& v4 = reinterpret_cast<sockaddr_in&>(result.bytes);
    auto& v6 = reinterpret_cast<sockaddr_in6&>(result.bytes);
    if (::inet_pton(AF_INET, text.c_str(), &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        v4.sin_port = htons(port);
        result.length = sizeof v4;
    } else if (::inet_pton(AF_INET6, text.c_str(), &v6.sin6_addr) == 1) {
        v6.sin6_family = AF_INET6;
        v6.sin6_port = htons(port);
        result.length = sizeof v6;
    } else {
        throw std::invalid_argument{"--bind: '" + text + "' is not a numeric IP address"};
    }
    return result;
}

unique_fd listen_on(const std::string& address, std::uint16_t port) {
    const socket_address where = parse(address, port);
    const std::string what = "cannot listen on " + address + " port " + std::to_string(port);
    unique_fd socket{
        require(::socket(where.bytes.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0),
                what.c_str())};
    set_option(socket.get(), SOL_SOCKET, SO_REUSEADDR, what.c_str());
    require(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&where.bytes), where.length),
            what.c_str());
    require(::listen(socket.get(), backlog), what.c_str());
    return socket;
}

std::uint16_t port_of(int socket) {
    sockaddr_storage name{};
    socklen_t length = sizeof name;
    require(::getsockname(socket, reinterpret_cast<sockaddr*>(&name), &length), "getsockname");
    return ntohs(name.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(name).sin6_port
                                            : reinterpret_cast<sockaddr_in&>(name).sin_port);
}

}  // namespace

void block_termination_signals() {
    const sigset_t set = termination_signals();
    if (const int error = ::pthread_sigmask(SIG_BLOCK, &set, nullptr); error != 0)
        throw std::system_error{error, std::generic_category(), "pthread_sigmask"};
}

server::server(const server_options& options)
    : service_{.data = store{options.threads == 1 ? sharing::one_thread : sharing::many_threads},
               .self = {.engine = options.engine, .mode = options.mode},
               .counted = {},
               .count_crossings = options.count_crossings,
               .stop = [this] { stop(); }},
      listener_{listen_on(options.address, options.port)} {
    service_.self.port = port_of(listener_.get());
    for (unsigned i = 0; i < options.threads; ++i)
        workers_.push_back(std::make_unique<worker>(service_, options.way));

    const sigset_t set = termination_signals();
    signals_ = unique_fd{require(::signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), "signalfd")};
    worker& first = *workers_.front();
    first.watch(signals_.get(), [this] { stop(); });
    first.watch(listener_.get(), [this] { accept_some(); });
    first.every([this](time_point now) { return tick(now); });
}

void server::run() {
    std::vector<std::jthread> others;  // joined when the first worker has returned
    for (std::size_t i = 1; i < workers_.size(); ++i)
        others.emplace_back([w = workers_[i].get()] { w->run(); });
    workers_.front()->run();
}

void server::stop() noexcept {
    for (const auto& w : workers_) w->stop();
}

void server::accept_some() {
    for (int i = 0; i < accepted_at_once; ++i) {
        unique_fd client{
            ::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)};
        if (client.get() < 0) {
            // Out of descriptors or memory: the listener stays readable, so look away for a tick.
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
                pause_accepting();
            return;
        }
        const int on = 1;  // failing to set these is no reason to refuse a client
        ::setsockopt(client.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        ::setsockopt(client.get(), SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        workers_[next_worker_++ % workers_.size()]->adopt(std::move(client));
    }
}

void server::pause_accepting() {
    workers_.front()->ignore(listener_.get());
    accepting_ = false;
}

milliseconds server::tick(time_point now) {
    if (!accepting_) {
        workers_.front()->watch(listener_.get(), [this] { accept_some(); });
        accepting_ = true;
    }
    return service_.data.remove_expired(now, expired_at_once) == expired_at_once ? busy_tick
                                                                                 : usual_tick;
}

}  // namespace kvd
