// Requests to whole programs, counted: all that an emulated machine with one processor does for one
// of them, in the program, in its client, in Linux and in KVM. The client is the same on both sides,
// and the remark says how much of the sum is its own.
#include <fmt/core.h>
#include <sched.h>
#include <signal.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>
#include <xos/cell.hpp>

#include "bench/harness.hpp"
#include "bench/round.hpp"
#include "bench/suites/app_processes.hpp"
#include "bench/suites/machine_account.hpp"
#include "bench/suites/server_load.hpp"

namespace xos::bench {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t requests_a_round = 2'000;
constexpr unsigned rounds = 3;

/// What a round has found out.
struct findings {
    double own = 0;                  ///< instructions of the client
    std::int64_t faults = 0;         ///< by Linux
    std::uint64_t exits = 0;         ///< in a cell
    std::int64_t faults_inside = 0;  ///< in a cell that tells
    std::uint64_t requests = 1;
} found;

double a_request(double sum) {
    return sum / static_cast<double>(found.requests);
}
/// To hundredths: nothing less is what a request does.
double a_request(std::int64_t sum) {
    return std::round(a_request(static_cast<double>(sum)) * 100) / 100 + 0.0;
}

std::uint64_t exits() {
    return found.exits;
}

fs::path reports() {
    return scratch() / "stats";
}

/// A cell tells what it did when its program ends. The last program has been asked for more than the
/// one before, and what their starts and ends take is the same.
void compare_reports() {
    const auto all = read_reports(reports());
    if (all.size() < 2) throw std::runtime_error("a program has not said what its cell did");
    const auto &more = all.back(), &less = all[all.size() - 2];
    // Where requests make no exits, those of the start differ by some either way.
    found.exits = more.exits - std::min(more.exits, less.exits);
    found.faults_inside = static_cast<std::int64_t>(more.faults - less.faults);
}

std::unique_ptr<running_server> the_server;

/// For a server whose cell tells while it runs.
using telling = std::uint64_t (*)(const running_server&);

template <const telling* Tell>
std::uint64_t count_load(std::uint64_t requests) {
    const auto exits_so_far = [] {
        if constexpr (Tell != nullptr) return (*Tell)(*the_server);
        return std::uint64_t{0};
    };
    const std::uint64_t faults = faults_of(the_server->id()), exits = exits_so_far();
    const machine_account account;
    the_server->load(static_cast<unsigned>(requests));
    const auto [all, own] = account.so_far();
    found = {.own = own,
             .faults = static_cast<std::int64_t>(faults_of(the_server->id()) - faults),
             .exits = exits_so_far() - exits,
             .requests = requests};
    return static_cast<std::uint64_t>(all);
}

void stop() {
    the_server->stop();
    the_server.reset();
    remark(
        fmt::format("client {:.0f}, {:.2f} faults", a_request(found.own), a_request(found.faults)));
    remove_scratch();
}

void stop_and_compare() {
    the_server->stop();
    the_server.reset();
    compare_reports();
    remark(fmt::format("client {:.0f}, {:.2f} faults, {:.2f} inside", a_request(found.own),
                       a_request(found.faults), a_request(found.faults_inside)));
    remove_scratch();
}

/// Whoever is woken waits for its turn, here and in what is started from here: otherwise Linux would
/// let the client interrupt the server after one answer or after twenty, depending on how long the
/// answers take, and the sides would do different work.
void wait_for_turns() {
    const sched_param none{};
    if (sched_setscheduler(0, SCHED_BATCH, &none) != 0)
        throw std::system_error(errno, std::generic_category(), "sched_setscheduler");
}

template <const server& S>
void start() {
    wait_for_turns();
    fs::current_path(scratch());
    the_server = std::make_unique<running_server>(S, std::vector<std::string>{});
}

/// Twice: the first one has no other requests than those that go before the count.
template <const server& S, bool Batched>
void start_twice() {
    wait_for_turns();
    fs::current_path(scratch());
    fs::remove(reports());
    auto variables = in_a_cell_with_stats(reports());
    if (Batched) variables.push_back("XOS_EVENT_LOOPS=batched");
    running_server first(S, variables);
    first.load(static_cast<unsigned>(warm_up_of(requests_a_round)));
    first.stop();
    the_server = std::make_unique<running_server>(S, variables);
}

constexpr telling* silent = nullptr;

benchmark counted(const char* name, const char* note, const side& linux_way, const side& xos_way,
                  const program& what) {
    return {.suite = "app",
            .name = name,
            .note = note,
            .linux_way = linux_way,
            .xos_way = xos_way,
            .counted_operations = requests_a_round,
            .most_rounds = rounds,
            .only_in = unit::instructions,
            .programs = {what},
            .processors = 2};
}

/// With XOS_EVENT_LOOPS=batched, or not.
template <const server& S, bool Batched = false>
registration unmodified(const char* name, const char* note, const char* package) {
    return registration(counted(name, note,
                                {.where = place::own_process,
                                 .setup = start<S>,
                                 .measure = count_load<silent>,
                                 .teardown = stop},
                                {.where = place::own_process,
                                 .setup = start_twice<S, Batched>,
                                 .measure = count_load<silent>,
                                 .teardown = stop_and_compare,
                                 .exits = exits},
                                {S.program, package}));
}

command kvd(std::uint16_t port, const char* engine, const char* way) {
    const cell_options& o = options_of_cell();
    return {find_program("kvd-static"),
            "--port",
            std::to_string(port),
            std::string("--engine=") + engine,
            std::string("--io=") + way,
            std::string("--mode=") + name(o.mode),
            std::string("--transport=") + name(o.transport)};
}
command kvd_natively(std::uint16_t port) {
    return kvd(port, "linux", "epoll");
}
command kvd_in_a_cell(std::uint16_t port) {
    return kvd(port, "cell", "epoll");
}
command kvd_in_batches(std::uint16_t port) {
    return kvd(port, "cell", "batch");
}
command kvd_under_way(std::uint16_t port) {
    return kvd(port, "cell", "uring");
}

std::uint64_t exits_of_kvd(const running_server& s) {
    const std::string info = s.ask("INFO xos\r\n", "\r\n\r\n");
    constexpr std::string_view key = "exits_total:";
    std::uint64_t exits = 0;
    if (const auto at = info.find(key); at != std::string::npos) {
        std::from_chars(info.data() + at + key.size(), info.data() + info.size(), exits);
        return exits;
    }
    throw std::runtime_error("kvd does not tell its exits");
}
constexpr telling told_by_kvd = exits_of_kvd;

constexpr std::string_view set = "SET key 0123456789\r\n", get = "GET key\r\n", ok = "+OK\r\n",
                           value_end = "0123456789\r\n";
constexpr unsigned connections = 20;

const server redis_get{"redis-server", redis, set, ok, get, value_end, 1, connections, SIGTERM};
const server redis_set{"redis-server", redis, {}, {}, set, ok, 1, connections, SIGTERM};
const server redis_set_p16{"redis-server", redis, {}, {}, set, ok, 16, connections, SIGTERM};
const server memcached_get{"memcached",
                           memcached<2>,
                           "set key 0 0 10\r\n0123456789\r\n",
                           "STORED\r\n",
                           "get key\r\n",
                           "END\r\n",
                           1,
                           connections,
                           SIGINT};
const server kvd_get_natively{"kvd-static", kvd_natively, set, ok, get, value_end, 1,
                              connections,  SIGTERM};
const server kvd_get_in_a_cell{"kvd-static", kvd_in_a_cell, set, ok, get, value_end, 1,
                               connections,  SIGTERM};
const server kvd_get_in_batches{"kvd-static", kvd_in_batches, set, ok, get, value_end, 1,
                                connections,  SIGTERM};
const server kvd_get_under_way{"kvd-static", kvd_under_way, set, ok, get, value_end, 1,
                               connections,  SIGTERM};

// The shell is no server: what a statement takes is the difference between a long input and a short
// one, each from the program's start to its end.

constexpr std::uint64_t statements_before = 250;

void write_statements(const char* file, std::uint64_t inserts) {
    std::ofstream text(file);
    text << "pragma journal_mode=wal; create table t(a integer primary key, b text);\n";
    for (std::uint64_t i = 0; i < inserts; i++)
        text << "insert into t(b) values('value " << 1'000'000 + i << "');\n";
}

void prepare_statements() {
    fs::current_path(scratch());
    fs::remove(reports());
    write_statements("short", statements_before);
}

struct shell_run {
    machine_account::sums counted;
    long faults;
};

shell_run run_statements(const char* file, const std::vector<std::string>& variables) {
    for (const char* left : {"db", "db-wal", "db-shm"}) fs::remove(left);
    const machine_account account;
    const rusage used =
        run_program({find_program("sqlite3"), "db", std::string(".read ") + file}, variables);
    return {account.so_far(), used.ru_minflt + used.ru_majflt};
}

std::uint64_t count_statements(std::uint64_t inserts, const std::vector<std::string>& variables) {
    write_statements("long", statements_before + inserts);
    const shell_run less = run_statements("short", variables),
                    more = run_statements("long", variables);
    found = {.own = more.counted.own - less.counted.own,
             .faults = more.faults - less.faults,
             .requests = inserts};
    return static_cast<std::uint64_t>(more.counted.all - less.counted.all);
}

std::uint64_t statements_natively(std::uint64_t inserts) {
    return count_statements(inserts, {});
}
std::uint64_t statements_in_a_cell(std::uint64_t inserts) {
    return count_statements(inserts, in_a_cell_with_stats(reports()));
}

void tell_natively() {
    remark(fmt::format("{:.2f} faults", a_request(found.faults)));
    remove_scratch();
}
void tell_in_a_cell() {
    compare_reports();
    remark(fmt::format("{:.2f} faults, {:.2f} inside", a_request(found.faults),
                       a_request(found.faults_inside)));
    remove_scratch();
}

template <const server& InACell>
registration example(const char* name, const char* note) {
    return registration(counted(name, note,
                                {.where = place::own_process,
                                 .setup = start<kvd_get_natively>,
                                 .measure = count_load<silent>,
                                 .teardown = stop},
                                {.where = place::own_process,
                                 .setup = start<InACell>,
                                 .measure = count_load<&told_by_kvd>,
                                 .teardown = stop,
                                 .exits = exits},
                                {"kvd-static", nullptr}));
}

const registration rows[] = {
    unmodified<redis_get>("redis-get", "GET by 20 connections; the client included",
                          "redis-server"),
    unmodified<redis_set>("redis-set", "SET by 20 connections; the client included",
                          "redis-server"),
    unmodified<redis_set_p16>("redis-set-p16", "the same, 16 at once", "redis-server"),
    unmodified<memcached_get>("memcached-get",
                              "get by 20 connections, 2 threads; the client included", "memcached"),
    unmodified<redis_get, true>("redis-get-batched", "GET as above, with --event-loops=batched",
                                "redis-server"),
    unmodified<redis_set, true>("redis-set-batched", "SET", "redis-server"),
    unmodified<redis_set_p16, true>("redis-set-p16-batched", "16 SET at once", "redis-server"),
    unmodified<memcached_get, true>("memcached-get-batched", "get", "memcached"),
    registration(counted("sqlite-insert", "a transaction with one row, in a file in memory",
                         {.where = place::own_process,
                          .setup = prepare_statements,
                          .measure = statements_natively,
                          .teardown = tell_natively},
                         {.where = place::own_process,
                          .setup = prepare_statements,
                          .measure = statements_in_a_cell,
                          .teardown = tell_in_a_cell,
                          .exits = exits},
                         {"sqlite3", "sqlite3"})),
    example<kvd_get_in_a_cell>("kvd-get", "GET by 20 connections; the client included"),
    example<kvd_get_in_batches>("kvd-get-batch",
                                "the same, inside with --io=batch, on Linux with --io=epoll"),
    example<kvd_get_under_way>("kvd-get-uring",
                               "the same, inside with --io=uring, on Linux with --io=epoll"),
};

}  // namespace

}  // namespace xos::bench
