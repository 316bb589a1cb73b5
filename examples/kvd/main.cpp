// kvd: a key-value server that speaks the Redis protocol and runs inside a cell.
//
//     kvd --port 7379 --threads 2 &      # "kvd: ready on 127.0.0.1:7379 engine=cell mode=ring0"
//     redis-cli -p 7379 set greeting hello ex 60
//     redis-cli -p 7379 info xos         # exits_total: what the requests cost so far
//
// The same binary with --engine=linux never touches libxos: compare.py runs both side by side.
// Only this file knows of cells. It enters before it creates a thread, so every worker is born
// inside, and sockets, epoll and signalfd reach Linux as they would without a cell.
//
// kvd is an example: strings only, nothing is written to disk, no authentication. Keep it on
// loopback (the default), since whoever connects may read everything and SHUTDOWN.
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <map>
#include <numeric>
#include <optional>
#include <string>
#include <system_error>
#include <xos/cell.hpp>
#include <xos/stats.hpp>

#include "server.hpp"

namespace {

enum class engine { linux_only, cell };
enum class statistics_report { no, yes };

struct options {
    kvd::server_options server;
    engine where = engine::cell;
    xos::mode mode = xos::mode::automatic;
    xos::transport transport = xos::transport::automatic;
    statistics_report report = statistics_report::no;
};

kvd::crossings count_crossings() {
    const xos::statistics s = xos::stats();
    const auto& forwarded = s.syscalls[static_cast<unsigned>(xos::syscall_path::exit)];
    return {.exits = std::accumulate(s.exits.begin(), s.exits.end(), std::uint64_t{0}),
            .forwarded = std::accumulate(forwarded.begin(), forwarded.end(), std::uint64_t{0})};
}

// A client is a descriptor, and 1024 of them is a common soft limit.
void allow_many_descriptors() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

void declare(CLI::App& app, options& o) {
    static const std::map<std::string, engine> engines{{"linux", engine::linux_only},
                                                       {"cell", engine::cell}};
    static const std::map<std::string, kvd::io> ways{
        {"epoll", kvd::io::epoll}, {"batch", kvd::io::batch}, {"uring", kvd::io::uring}};
    std::map<std::string, xos::mode> modes;
    for (const auto m : {xos::mode::automatic, xos::mode::ring0, xos::mode::ring3, xos::mode::pvm})
        modes.emplace(xos::name(m), m);
    std::map<std::string, xos::transport> transports;
    for (const auto t : {xos::transport::automatic, xos::transport::exit, xos::transport::module})
        transports.emplace(xos::name(t), t);

    app.add_option("--engine", o.where, "linux or cell (default cell)")
        ->transform(CLI::CheckedTransformer(engines));
    app.add_option("--mode", o.mode, "privilege mode of the cell: auto, ring0, ring3 or pvm")
        ->transform(CLI::CheckedTransformer(modes));
    app.add_option("--transport", o.transport, "how calls reach Linux: auto, exit or module")
        ->transform(CLI::CheckedTransformer(transports));
    app.add_option("--io", o.server.way,
                   "system calls one by one (epoll, the default), in batches (batch), or as "
                   "operations under way, by io_uring where it is allowed (uring)")
        ->transform(CLI::CheckedTransformer(ways));
    app.add_option("--bind", o.server.address, "numeric address to listen on (default 127.0.0.1)");
    app.add_option("--port", o.server.port, "port; 0, the default, chooses a free one");
    app.add_option("--threads", o.server.threads, "worker threads (default 1)")
        ->check(CLI::Range(1, 256));
    app.add_flag_callback(
        "--stats", [&o] { o.report = statistics_report::yes; },
        "print the cell's statistics to stderr at the end");
}

void serve(const options& o) {
    kvd::server server{o.server};
    std::printf("kvd: ready on %s:%u engine=%s mode=%s\n", o.server.address.c_str(), server.port(),
                o.server.engine.c_str(), o.server.mode.c_str());
    std::fflush(stdout);
    server.run();
}

void serve_on_linux(options& o) {
    o.server.engine = "linux";
    o.server.mode = "none";
    serve(o);
}

void serve_in_cell(options& o) {
    xos::start({.mode = o.mode, .transport = o.transport});
    {
        const xos::scoped_entry inside;
        o.server.engine = "cell";
        o.server.mode = xos::name(xos::current_mode());
        o.server.count_crossings = count_crossings;
        serve(o);
    }
    if (o.report == statistics_report::yes)
        std::fprintf(stderr, "%s\n", xos::to_string(xos::stats()).c_str());
}

}  // namespace

int main(int argc, char** argv) {
    options o;
    CLI::App app{"kvd: a small key-value server that speaks the Redis protocol"};
    declare(app, o);
    CLI11_PARSE(app, argc, argv);

    try {
        allow_many_descriptors();
        kvd::block_termination_signals();
        if (o.where == engine::cell)
            serve_in_cell(o);
        else
            serve_on_linux(o);
    } catch (const std::exception& e) {
        std::fprintf(stderr, "kvd: %s\n", e.what());
        return 1;
    }
    return 0;
}
