// xos-bench: measures the benchmarks that are linked into it.
#include <fmt/core.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "bench/facts.hpp"
#include "bench/options.hpp"
#include "bench/report.hpp"
#include "bench/runner.hpp"
#include "bench/suites/app_processes.hpp"
#include "bench/supervisor.hpp"

namespace {

using namespace xos::bench;

constexpr int some_failed = 1, wrong_use = 2, interrupted = 130;

bool wanted(const benchmark& b, const options& o) {
    const auto& suites = o.suites;
    if (b.only_in && b.only_in != o.how.unit) return false;
    // These take minutes, and whole programs do so on an emulated machine.
    if (suites.empty() && o.quick && std::string("alloc") == b.suite) return false;
    if (suites.empty() && (o.quick || o.how.unit == unit::instructions) &&
        std::string("app") == b.suite)
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

/// For `xos bench`, which reads them, and for nobody else.
class machine_lines {
  public:
    explicit machine_lines(bool wanted) : wanted_(wanted) {}
    void operator()(const nlohmann::ordered_json& what) const {
        if (!wanted_) return;
        // What a side has remarked may be cut in the middle of a character.
        using handler = nlohmann::ordered_json::error_handler_t;
        fmt::print("{}{}\n", machine_line, what.dump(-1, ' ', false, handler::replace));
        std::fflush(stdout);
    }

  private:
    bool wanted_;
};

nlohmann::ordered_json facts(const options& o, unsigned rounds) {
    nlohmann::ordered_json run{{"engine", o.engine},
                               {"mode", xos::name(o.mode)},
                               {"transport", xos::name(o.transport)},
                               {"unit", symbol(o.how.unit)},
                               {"rounds", rounds},
                               {"quick", o.quick}};
    run.update(facts_of_program());
    run["machine"] = facts_of_machine();
    return run;
}

/// The row as JSON; the table has its line then.
nlohmann::ordered_json measure(const benchmark& b, const options& o, const runner& how,
                               const table& out) {
    if (needs_cell(b) && !xos::started()) {
        xos::start(options_of_cell());
        if (o.mode == xos::mode::automatic)
            fmt::print("mode {}: {}\n", xos::name(xos::current_mode()), xos::mode_reason());
    }
    nlohmann::ordered_json row;
    if (const auto way = xos::current_transport();
        b.way != xos::transport::automatic && b.way != way) {
        const std::string why = fmt::format("the transport is {}", xos::name(way));
        out.left_out(b, why);
        row = to_json(b, o.how.unit, "left_out", why);
    } else {
        const result r = how.run(b);
        out.line(r);
        row = to_json(r, o.how.unit);
    }
    row["mode"] = xos::name(xos::started() ? xos::current_mode() : o.mode);
    row["transport"] = xos::name(xos::started() ? xos::current_transport() : o.transport);
    return row;
}

int run(const options& o) {
    const auto rows = select(o);
    if (rows.empty())
        throw std::runtime_error("no benchmark of that suite or name; --list shows them");
    set_options_of_cell({.mode = o.mode, .transport = o.transport});
    const runner how(o.how);
    const table out(rows, o.how.unit, o.verbose ? detail::verbose : detail::plain);
    const machine_lines tell(o.machine_lines);
    unsigned rounds = 0;
    for (const auto* b : rows) rounds = std::max(rounds, std::min(o.how.rounds, b->most_rounds));
    tell({{"run", facts(o, rounds)}});
    out.header(o.engine, fmt::format("mode {}", xos::name(o.mode)), rounds);
    unsigned failures = 0;
    const row_events events{
        .begins =
            [&](std::size_t i) {
                tell({{"next", full_name(*rows[i])}, {"number", i + 1}, {"of", rows.size()}});
            },
        .ended =
            [&](std::size_t, const std::string& row) {
                tell({{"row", nlohmann::ordered_json::parse(row)}});
            },
        .failed =
            [&](std::size_t i, const std::string& why) {
                failures++;
                out.failure(*rows[i], why);
                tell({{"row", to_json(*rows[i], o.how.unit, "failed", why)}});
            }};
    const auto line = [&](std::size_t i) {
        using handler = nlohmann::ordered_json::error_handler_t;
        return measure(*rows[i], o, how, out).dump(-1, ' ', false, handler::replace);
    };
    if (!run_rows(rows.size(), line, o.row_seconds, events)) return interrupted;
    return failures ? some_failed : 0;
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
    app.add_flag("--machine-lines", o.machine_lines, "Also lines of JSON for xos bench");
    app.allow_extras();
    app.callback([&app] { refuse_unknown(app); });
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& e) {
        return app.exit(e) == 0 ? 0 : wrong_use;
    }
    if (o.quick) o.how.round_nanoseconds /= 2;
    o.how.rounds = o.rounds                   ? o.rounds
                   : o.how.unit == unit::time ? (o.quick ? 5 : 51)
                                              : (o.quick ? 5 : 10);
    try {
        check_suites(o);
        if (o.only_list) return list(o);
        if (o.only_programs) return list_programs(o);
        return run(o);
    } catch (const std::exception& e) {
        fmt::print(stderr, "xos-bench: {}\n", e.what());
        return wrong_use;
    }
}
