// The options of xos-bench. `xos bench` declares the same ones, to explain and check them and then
// pass them on.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "bench/runner.hpp"

namespace xos::bench {

struct options {
    std::vector<std::string> suites;
    std::string filter;
    std::string engine = "native";
    xos::mode mode = xos::mode::automatic;
    xos::transport transport = xos::transport::automatic;
    plan how;
    unsigned rounds = 0;         ///< 0 for as many as the unit wants
    unsigned row_seconds = 300;  ///< of the machine's own clock
    bool quick = false, verbose = false, only_list = false, only_programs = false;
    bool machine_lines = false;
};

/// All but --engine, which means something else to each program. `o` outlives the parsing.
void add_options(CLI::App& app, options& o);

/// @throws CLI::ParseError an option that `app` does not have was given; it names the nearest one.
///         For an application that allows extras, which would otherwise be refused with less help.
void refuse_unknown(const CLI::App& app);

/// The one of `known` that a person who wrote `word` has probably meant; empty when none is near.
std::string nearest(const std::string& word, const std::vector<std::string>& known);

}  // namespace xos::bench
