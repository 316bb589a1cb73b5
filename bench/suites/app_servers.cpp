// Servers under load, natively and in a cell. A row's time is that of the client, which runs
// outside beside the server: so many requests by so many connections, each sending the next when
// its answer is there.
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
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "bench/harness.hpp"
#include "bench/suites/app_processes.hpp"

namespace xos::bench {

namespace {

namespace fs = std::filesystem;

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

class connection {
  public:
    /// Whether somebody listens; throws for any other reason.
    bool open(std::uint16_t port) {
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
    connection() = default;
    connection(connection&& other) noexcept : socket_(other.socket_) { other.socket_ = -1; }
    connection& operator=(connection&&) = delete;
    ~connection() {
        if (socket_ >= 0) close(socket_);
    }

    void send(std::string_view text) const {
        while (!text.empty()) {
            const ssize_t n = ::send(socket_, text.data(), text.size(), MSG_NOSIGNAL);
            if (n < 0) fail("send");
            text.remove_prefix(static_cast<std::size_t>(n));
        }
    }
    /// What is there, at least a byte.
    std::size_t receive(char* to, std::size_t most) const {
        const ssize_t n = recv(socket_, to, most, 0);
        if (n < 0) fail("recv");
        if (n == 0) throw std::runtime_error("the server has closed the connection");
        return static_cast<std::size_t>(n);
    }
    /// Until the answer ends so; its length.
    std::size_t ask(std::string_view request, std::string_view ending) const {
        send(request);
        std::string answer;
        char piece[65536];
        while (!std::string_view(answer).ends_with(ending)) {
            if (answer.size() > 1 << 20)
                throw std::runtime_error("no answer of the server's ends as it should");
            answer.append(piece, receive(piece, sizeof piece));
        }
        return answer.size();
    }
    int descriptor() const { return socket_; }

  private:
    int socket_ = -1;
};

struct server {
    const char* program;
    /// Its command; may write files into the working directory, an empty one.
    command (*words)(std::uint16_t port);
    std::string_view first, first_ending;  ///< sent once
    std::string_view request, ending;
    unsigned at_once;  ///< requests in one piece
    unsigned connections;
    int end;  ///< the signal by which it ends well
};

constexpr unsigned requests_a_round = 20'000;

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

/// Ended with the object, if it has not ended before.
class process {
  public:
    process(const command& words, const std::vector<std::string>& variables)
        : words_(words), pid_(start_program(words, variables)) {}
    process(const process&) = delete;
    process& operator=(const process&) = delete;
    ~process() {
        if (pid_ < 0) return;
        kill(pid_, SIGKILL);
        waitpid(pid_, nullptr, 0);
    }
    pid_t id() const { return pid_; }
    void end(int signal) {
        kill(pid_, signal);
        end_of_program(std::exchange(pid_, -1), words_);
    }

  private:
    command words_;
    pid_t pid_;
};

class running {
  public:
    running(const server& s, const std::vector<std::string>& variables, std::uint16_t port)
        : server_(s), process_(s.words(port), variables) {
        connection first;
        for (unsigned patience = 0; !first.open(port); patience++) {
            if (patience == 2'000) throw std::runtime_error(std::string(s.program) + " is mute");
            poll(nullptr, 0, 5);
        }
        if (!s.first.empty()) first.ask(s.first, s.first_ending);
        answer_ = first.ask(s.request, s.ending);
        for (unsigned i = 0; i < s.at_once; i++) burst_ += s.request;
        for (unsigned i = 0; i < s.connections; i++) {
            connections_.emplace_back();
            if (!connections_.back().open(port)) fail("connect");
        }
    }

    void load(unsigned requests) {
        std::vector<pollfd> waiting;
        std::vector<std::size_t> missing(connections_.size(), answer_ * server_.at_once);
        unsigned sent = 0, done = 0;
        for (const auto& c : connections_) {
            waiting.push_back({c.descriptor(), POLLIN, 0});
            c.send(burst_);
            sent += server_.at_once;
        }
        char piece[65536];
        while (done < requests) {
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

    /// KiB resident.
    long stop() {
        const long most = resident(process_.id());
        connections_.clear();
        process_.end(server_.end);
        return most;
    }

  private:
    const server& server_;
    process process_;
    std::size_t answer_ = 0;
    std::string burst_;
    std::vector<connection> connections_;
};

std::unique_ptr<running> the_server;

template <const server& S>
void start_natively() {
    fs::current_path(scratch());
    the_server = std::make_unique<running>(S, std::vector<std::string>{}, free_port());
}
template <const server& S>
void start_in_a_cell() {
    fs::current_path(scratch());
    fs::remove(scratch() / "stats");
    the_server =
        std::make_unique<running>(S, in_a_cell_with_stats(scratch() / "stats"), free_port());
}

void load(std::uint64_t operations) {
    for (; operations; operations--) the_server->load(requests_a_round);
}

void stop() {
    the_server->stop();
    remove_scratch();
}
template <const server& S>
void stop_and_look() {
    const long cell = the_server->stop();
    constexpr double asked = 2 * requests_a_round;  // and as many before it was measured
    const auto exits = static_cast<double>(count_exits(scratch() / "stats"));
    running native(S, {}, free_port());
    native.load(requests_a_round);
    remark(fmt::format("{:.2f} exits a request with its start, {:+.1f} MiB resident", exits / asked,
                       static_cast<double>(cell - native.stop()) / 1024));
    remove_scratch();
}

template <const server& S>
void add_row(const char* name, const char* note) {
    if (find_program(S.program).empty()) return;
    registration({.suite = "app",
                  .name = name,
                  .note = note,
                  .linux_way = side{.where = place::own_process,
                                    .setup = start_natively<S>,
                                    .run = load,
                                    .teardown = stop,
                                    .most = 1},
                  .xos_way = {.where = place::own_process,
                              .setup = start_in_a_cell<S>,
                              .run = load,
                              .teardown = stop_and_look<S>,
                              .most = 1},
                  .counted_operations = 1,
                  .most_rounds = 5});
}

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
command memcached(std::uint16_t port) {
    return {find_program("memcached"), "-u", "root", "-l", "127.0.0.1", "-p",
            std::to_string(port),      "-U", "0",    "-t", "4"};
}
command nginx(std::uint16_t port) {
    const std::string here = fs::current_path();
    std::ofstream("file") << std::string(1000, 'x') << "end of file\n";
    std::ofstream("nginx.conf") << fmt::format(
        "user root;\ndaemon off;\nworker_processes 2;\nerror_log stderr;\npid {0}/nginx.pid;\n"
        "events {{}}\nhttp {{\n  access_log off;\n  keepalive_requests 1000000;\n"
        "  client_body_temp_path {0}/t1;\n  proxy_temp_path {0}/t2;\n  fastcgi_temp_path {0}/t3;\n"
        "  uwsgi_temp_path {0}/t4;\n  scgi_temp_path {0}/t5;\n"
        "  server {{ listen 127.0.0.1:{1}; root {0}; }}\n}}\n",
        here, port);
    return {find_program("nginx"), "-e", "stderr", "-p", here, "-c", here + "/nginx.conf"};
}

constexpr std::string_view set = "SET key 0123456789\r\n", get = "GET key\r\n";

const server redis_server{"redis-server",   redis, set, "+OK\r\n", get,
                          "0123456789\r\n", 1,     16,  SIGTERM};
const server redis_pipelined{"redis-server",   redis, set, "+OK\r\n", get,
                             "0123456789\r\n", 16,    16,  SIGTERM};
const server memcached_server{"memcached",
                              memcached,
                              "set key 0 0 10\r\n0123456789\r\n",
                              "STORED\r\n",
                              "get key\r\n",
                              "END\r\n",
                              1,
                              16,
                              SIGINT};
const server nginx_server{
    "nginx",         nginx, {}, {},     "GET /file HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "end of file\n", 1,     16, SIGQUIT};

[[maybe_unused]] const bool rows_added = [] {
    add_row<redis_server>("redis", "20,000 GETs by 16 connections");
    add_row<redis_pipelined>("redis-pipelined", "the same, 16 at once");
    add_row<memcached_server>("memcached", "20,000 gets by 16 connections, 4 threads");
    add_row<nginx_server>("nginx", "20,000 files of 1 KB by 16 connections, 2 workers");
    return true;
}();

}  // namespace

}  // namespace xos::bench
