// Where benchmarks run: this machine, or an emulated one.
#pragma once

#include <functional>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace xos::tool {

using words = std::vector<std::string>;

struct engine {
    const char* name;
    /// Its emulator, if that is a program of Debian's, and the package.
    const char *emulator, *package;
    /// How long a row may take by the machine's own clock, which runs with the instructions there.
    unsigned row_seconds;
};

/// The machine itself is the first.
const std::vector<engine>& all_engines();
bool emulated(const engine& e);

/// What of the command line the benchmarks get.
struct bench_words {
    std::string module;
    words everywhere;  ///< but for --unit
    std::string unit;  ///< of this machine
    bool has_mode = false;
};

/// `xos-bench` with what this engine makes of the words, for --list or --programs.
words listing(const engine& e, const bench_words& w, const std::string& what);

/// The output of a command, and its status as a shell reports it.
struct output {
    std::string text;
    int status;
};
output output_of(const words& command);

/// Gets the objects of bench/report.hpp's lines.
using machine_line_sink = std::function<void(const nlohmann::ordered_json&)>;
using text_sink = std::function<void(const std::string& line)>;

/// Runs the benchmarks. SIGINT and SIGTERM end it early, with status 130; what it has told by then
/// counts.
/// @throws std::runtime_error an emulator or a program is missing, with the package to install
int run_engine(const engine& e, const bench_words& w, const machine_line_sink& object,
               const text_sink& text);

}  // namespace xos::tool
