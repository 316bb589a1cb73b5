// The subcommands of `xos`, each in a file of its own.
#pragma once

#include <CLI/CLI.hpp>

namespace xos::tool {

/// Statuses that every command keeps to. `xos run` ends with its program's instead.
inline constexpr int status_ok = 0, status_failed = 1, status_usage = 2;

/// How the process is to end; the callback of the subcommand that was given sets it.
struct command_result {
    int status = status_ok;
};

// Each adds its subcommand. `result` outlives the parsing.
void add_doctor(CLI::App& app, command_result& result);
void add_bench(CLI::App& app, command_result& result);
void add_syscalls(CLI::App& app, command_result& result);
/// Takes the program's arguments off the command line.
void add_run(CLI::App& app, command_result& result, int& argc, char** argv);

}  // namespace xos::tool
