// xos-bench: measures the benchmarks that are linked into it.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/options.hpp"
#include "bench/report.hpp"
#include "bench/runner.hpp"
#include "bench/suites/app_processes.hpp"

namespace {

using namespace xos::bench;

constexpr int some_failed = 1, wrong_use = 2;

bool wanted(const benchmark& b, const options& o) {
    const auto& suites = o.suites;
    if (b.only_in && b.only_in != o.how.unit) return false;
    // It takes minutes on an emulated machine.
    if (suites.empty() && o.how.unit == unit::instructions && std::string("app") == b.suite)
        return false;
    const bool in_suite =
        suites.empty() || std::find(suites.begin(), suites.end(), b.suite) != suites.end();
    return in_suite && full_name(b).find(o.filter) != std::string::npos;
}

/// @throws std::runtime_error a suite was asked for that is not there
void check_suites(const options& o) {
    std::set<std::string> known;
    for (const auto& b : all_benchmarks()) known.insert(b.suite);
    for (const auto& suite : o.suites) {
        if (known.contains(suite)) continue;
        const std::string near = nearest(suite, {known.begin(), known.end()});
        throw std::runtime_error(fmt::format(
            "there is no suite {}{}; there are {}", suite,
            near.empty() ? "" : fmt::format(" (did you mean {}?)", near), fmt::join(known, ", ")));
    }
}

std::vector<const benchmark*> select(const options& o) {
    std::vector<const benchmark*> selected;
    for (const auto& b : all_benchmarks()) {
        if (wanted(b, o)) selected.push_back(&b);
    }
    // A child becomes a cell of its own, which the child of a cell cannot.
    std::stable_partition(selected.begin(), selected.end(),
                          [](const auto* b) { return needs_child(*b); });
    return selected;
}

void write_json(const std::string& path, const std::string& text) {
    if (path == "-") {
        fmt::print("{}\n{}\n{}\n", json_begin, text, json_end);
        return;
    }
    std::ofstream file(path);
    file << text << '\n';
    if (!file.flush()) throw std::runtime_error("cannot write " + path);
}

int run(const options& o) {
    const limits bounds = o.limits_file.empty() ? limits{} : read_limits(o.limits_file);
    const auto rows = select(o);
    if (rows.empty())
        throw std::runtime_error("no benchmark of that suite or name; --list shows them");
    set_options_of_cell({.mode = o.mode, .transport = o.transport});
    const runner measure(o.how);
    const table out(rows, o.how.unit, o.verbose ? detail::verbose : detail::plain);
    unsigned rounds = 0;
    for (const auto* b : rows) rounds = std::max(rounds, std::min(o.how.rounds, b->most_rounds));
    out.header(o.engine, fmt::format("mode {}", xos::name(o.mode)), rounds);
    std::vector<result> results;
    unsigned failed = 0;
    for (const auto* b : rows) {
        try {
            if (!needs_child(*b) && !xos::started()) xos::start(options_of_cell());
            if (const auto way = xos::current_transport();
                b->way != xos::transport::automatic && b->way != way) {
                out.left_out(*b, fmt::format("the transport is {}", xos::name(way)));
                // What has a limit must be measured.
                failed += bounds.contains(full_name(*b));
                continue;
            }
            results.push_back(measure.run(*b));
            out.line(results.back());
        } catch (const std::exception& e) {
            failed++;
            out.failure(*b, e.what());
        }
    }
    const xos::mode taken = xos::started() ? xos::current_mode() : o.mode;
    if (o.mode == xos::mode::automatic && xos::started()) {
        fmt::print("mode {}: {}\n", xos::name(taken), xos::mode_reason());
    }
    if (!o.json.empty()) {
        write_json(o.json, to_json({o.engine, xos::name(taken), o.how.unit}, results));
    }
    failed += check_limits(bounds, results);
    return failed ? some_failed : 0;
}

int list(const options& o) {
    for (const auto& b : all_benchmarks()) {
        if (wanted(b, o)) fmt::print("{:<28} {}\n", full_name(b), b.note);
    }
    return 0;
}

/// What `xos bench` takes along to an emulated machine: name, package and path, or a dash for none.
int list_programs(const options& o) {
    std::set<std::string> lines;
    for (const auto& b : all_benchmarks()) {
        if (!wanted(b, o)) continue;
        for (const auto& [name, package] : b.programs) {
            const std::string path = find_program(name);
            lines.insert(fmt::format("{} {} {}\n", name, package ? package : "-",
                                     path.empty() ? "-" : path));
        }
    }
    for (const auto& line : lines) fmt::print("{}", line);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    options o;
    CLI::App app("Measures libxos beside Linux", "xos-bench");
    add_options(app, o);
    app.add_option("--engine", o.engine, "What to call this machine in the output");
    app.allow_extras();
    app.callback([&app] { refuse_unknown(app); });
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : wrong_use;
    }
    o.how.rounds = o.rounds ? o.rounds : o.how.unit == unit::time ? 51 : 9;
    try {
        check_suites(o);
        if (o.only_list) return list(o);
        if (o.only_programs) return list_programs(o);
        if (!o.limits_file.empty() && o.how.unit != unit::instructions) {
            throw std::runtime_error("--limits needs --unit=instructions: times do not repeat");
        }
        return run(o);
    } catch (const std::exception& e) {
        fmt::print(stderr, "xos-bench: {}\n", e.what());
        return wrong_use;
    }
}
