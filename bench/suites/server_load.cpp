#include "bench/suites/server_load.hpp"

#include <arpa/inet.h>
#include <fmt/core.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <stdexcept>
#include <system_error>
#include <utility>

namespace xos::bench {

namespace {

[[noreturn]] void fail(const char* what) {
    throw std::system_error(errno, std::generic_category(), what);
}

sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/// A port that is free now, below those that Linux gives to clients.
std::uint16_t free_port() {
    for (std::uint16_t port = static_cast<std::uint16_t>(20'000 + getpid() % 10'000);; port++) {
        const int s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        const int yes = 1;
        setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
        const sockaddr_in address = loopback(port);
        const int r = bind(s, reinterpret_cast<const sockaddr*>(&address), sizeof address);
        close(s);
        if (r == 0) return port;
        if (errno != EADDRINUSE) fail("bind");
    }
}

/// In KiB, the most that a process has had, and its children.
long resident(pid_t pid) {
    long sum = 0;
    std::ifstream status(fmt::format("/proc/{}/status", pid));
    for (std::string line; std::getline(status, line);) {
        if (line.starts_with("VmHWM:")) sum += std::stol(line.substr(6));
    }
    std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", pid));
    for (pid_t child; children >> child;) sum += resident(child);
    return sum;
}

}  // namespace

command redis(std::uint16_t port) {
    return {find_program("redis-server"),
            "--port",
            std::to_string(port),
            "--save",
            "",
            "--bind",
            "127.0.0.1",
            "--daemonize",
            "no"};
}

bool connection::open(std::uint16_t port) {
    socket_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (socket_ < 0) fail("socket");
    const sockaddr_in address = loopback(port);
    if (connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) {
        const int yes = 1;
        setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        return true;
    }
    if (errno != ECONNREFUSED) fail("connect");
    close(socket_);
    socket_ = -1;
    return false;
}

connection::~connection() {
    if (socket_ >= 0) close(socket_);
}

void connection::send(std::string_view text) const {
    while (!text.empty()) {
        const ssize_t n = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
        if (n < 0) fail("send");
        text.remove_prefix(static_cast<std::size_t>(n));
    }
}

std::size_t connection::receive(char* to, std::size_t most) const {
    const ssize_t n = recv(socket_, to, most, 0);
    if (n < 0) fail("recv");
    if (n == 0) throw std::runtime_error("the server has closed the connection");
    return static_cast<std::size_t>(n);
}

std::string connection::ask(std::string_view request, std::string_view ending) const {
    send(request);
    std::string answer;
    char piece[65536];
    while (!std::string_view(answer).ends_with(ending)) {
        if (answer.size() > 1 << 20)
            throw std::runtime_error("no answer of the server's ends as it should");
        answer.append(piece, receive(piece, sizeof piece));
    }
    return answer;
}

process::~process() {
    if (pid_ < 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
}

void process::end(int signal) {
    kill(pid_, signal);
    end_of_program(std::exchange(pid_, -1), words_);
}

running_server::running_server(const server& s, const std::vector<std::string>& variables)
    : server_(s), port_(free_port()), process_(s.words(port_), variables) {
    first_.emplace();
    for (unsigned patience = 0; !first_->open(port_); patience++) {
        if (patience == 2'000) throw std::runtime_error(std::string(s.program) + " is mute");
        poll(nullptr, 0, 5);
    }
    if (!s.first.empty()) first_->ask(s.first, s.first_ending);
    answer_ = first_->ask(s.request, s.ending).size();
    for (unsigned i = 0; i < s.at_once; i++) burst_ += s.request;
    for (unsigned i = 0; i < s.connections; i++) {
        connections_.emplace_back();
        if (!connections_.back().open(port_)) fail("connect");
    }
}

void running_server::load(unsigned requests) {
    std::vector<pollfd> waiting;
    std::vector<std::size_t> missing(connections_.size(), answer_ * server_.at_once);
    unsigned sent = 0, done = 0;
    for (const auto& c : connections_) {
        waiting.push_back({c.descriptor(), POLLIN, 0});
        c.send(burst_);
        sent += server_.at_once;
    }
    char piece[65536];
    while (done < sent) {
        if (poll(waiting.data(), waiting.size(), 30'000) <= 0)
            throw std::runtime_error("no answer within 30 seconds");
        for (std::size_t i = 0; i < waiting.size(); i++) {
            if (!waiting[i].revents) continue;
            const std::size_t n = connections_[i].receive(piece, sizeof piece);
            if (n > missing[i]) throw std::runtime_error("an answer is longer than before");
            missing[i] -= n;
            if (missing[i]) continue;
            done += server_.at_once;
            if (sent >= requests) continue;
            missing[i] = answer_ * server_.at_once;
            connections_[i].send(burst_);
            sent += server_.at_once;
        }
    }
}

long running_server::stop() {
    const long most = resident(process_.id());
    connections_.clear();
    first_.reset();
    process_.end(server_.end);
    return most;
}

}  // namespace xos::bench
