#include "bench/options.hpp"

#include <algorithm>
#include <map>
#include <numeric>

namespace xos::bench {

namespace {

/// Letters to insert, remove or replace (Levenshtein).
std::size_t distance(const std::string& a, const std::string& b) {
    std::vector<std::size_t> row(b.size() + 1);
    std::iota(row.begin(), row.end(), 0);
    for (std::size_t i = 1; i <= a.size(); i++) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); j++) {
            const std::size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
        }
    }
    return row.back();
}

}  // namespace

std::string nearest(const std::string& word, const std::vector<std::string>& known) {
    std::string found;
    // Further off, it is another word.
    std::size_t least = word.size() / 3 + 2;
    for (const auto& candidate : known) {
        // Who abbreviates means what begins so.
        const bool begins = !word.empty() && candidate.rfind(word, 0) == 0;
        if (const auto d = begins ? 0 : distance(word, candidate); d < least) {
            least = d;
            found = candidate;
        }
    }
    return found;
}

void add_options(CLI::App& app, options& o) {
    const std::map<std::string, xos::mode> modes{{"auto", xos::mode::automatic},
                                                 {"ring0", xos::mode::ring0},
                                                 {"ring3", xos::mode::ring3},
                                                 {"pvm", xos::mode::pvm}};
    const std::map<std::string, xos::transport> transports{{"auto", xos::transport::automatic},
                                                           {"exit", xos::transport::exit},
                                                           {"module", xos::transport::module}};
    const std::map<std::string, unit> units{{"time", unit::time},
                                            {"instructions", unit::instructions}};
    app.add_option("SUITES", o.suites, "Only these suites; --list shows all");
    app.add_option("--filter", o.filter, "Only benchmarks whose suite/name contains this");
    app.add_flag("--list", o.only_list, "List the benchmarks and run none");
    app.add_flag("--programs", o.only_programs,
                 "List the programs that the benchmarks start, with their packages, and run none");
    app.add_option("--mode", o.mode, "Privilege mode: auto, ring0, ring3, pvm")
        ->transform(CLI::CheckedTransformer(modes).description(""));
    app.add_option("--transport", o.transport, "How calls reach Linux: auto, exit, module")
        ->transform(CLI::CheckedTransformer(transports).description(""));
    app.add_flag("--quick", o.quick,
                 "Fewer and shorter rounds, and no allocators and whole programs unless their "
                 "suite is named: less "
                 "certain, in two minutes");
    app.add_option("--rounds", o.rounds,
                   "Rounds of each side; 51, or 10 for instructions, and 5 with --quick")
        ->check(CLI::PositiveNumber);
    app.add_option(
           "--row-seconds", o.row_seconds,
           "A row that takes more of the machine's own clock has failed; 300, or less where "
           "that clock runs with the instructions")
        ->check(CLI::PositiveNumber);
    app.add_option("--unit", o.how.unit,
                   "time, or instructions where the TSC counts those: on emulated machines")
        ->transform(CLI::CheckedTransformer(units).description(""));
    app.add_flag("-v,--verbose", o.verbose, "Also minima, medians and median deviations");
}

void refuse_unknown(const CLI::App& app) {
    if (app.remaining_size() == 0) return;
    const std::string given = app.remaining().front();
    std::vector<std::string> known{"--help"};
    for (const CLI::Option* option : app.get_options()) {
        for (const auto& name : option->get_lnames()) known.push_back("--" + name);
    }
    const std::string near = nearest(given.substr(0, given.find('=')), known);
    throw CLI::ParseError(
        "there is no option " + given + (near.empty() ? "" : "; did you mean " + near + "?"),
        CLI::ExitCodes::ExtrasError);
}

}  // namespace xos::bench
