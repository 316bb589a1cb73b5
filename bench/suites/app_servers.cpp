// Servers under load, natively and in a cell. A row's time is that of the client, which runs
// outside beside the server: so many requests by so many connections, each sending the next when
// its answer is there.
#include <fmt/core.h>
#include <signal.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "bench/harness.hpp"
#include "bench/suites/app_processes.hpp"
#include "bench/suites/server_load.hpp"

namespace xos::bench {

namespace {

namespace fs = std::filesystem;

constexpr unsigned requests_a_round = 20'000;

std::unique_ptr<running_server> the_server;

template <const server& S>
void start_natively() {
    fs::current_path(scratch());
    the_server = std::make_unique<running_server>(S, std::vector<std::string>{});
}
template <const server& S>
void start_in_a_cell() {
    fs::current_path(scratch());
    fs::remove(scratch() / "stats");
    the_server = std::make_unique<running_server>(S, in_a_cell_with_stats(scratch() / "stats"));
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
    running_server native(S, {});
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
                  .most_rounds = 5,
                  .only_in = unit::time,
                  .processors = 2});
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
                              memcached<4>,
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
