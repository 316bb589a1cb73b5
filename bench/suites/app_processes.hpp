// What the suite `app` starts: programs and servers, natively or in a cell, as a user would.
#pragma once

#include <sys/resource.h>
#include <sys/types.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace xos::bench {

using command = std::vector<std::string>;

/// Where it is, or empty: beside this program, on the path or where servers are.
std::string find_program(const std::string& name);

/// For a program's environment: in a cell, and where to say at its end what the cell had to do.
std::vector<std::string> in_a_cell();
std::vector<std::string> in_a_cell_with_stats(const std::filesystem::path& file);

/// A directory that exists, of this benchmark's own, and its end.
std::filesystem::path scratch();
void remove_scratch();

/// A program whose output nobody reads. @throws std::system_error
pid_t start_program(const command& words, const std::vector<std::string>& variables);
/// Waits for its end, and returns what it and its children have used.
/// @throws std::runtime_error if it failed
rusage end_of_program(pid_t pid, const command& words);
rusage run_program(const command& words, const std::vector<std::string>& variables);

/// What --stats=json has said of a process at its end.
struct cell_report {
    std::uint64_t exits;
    std::uint64_t faults;  ///< page faults taken in the guest
};
std::vector<cell_report> read_reports(const std::filesystem::path& file);

/// The sum of a program and its children.
std::uint64_t count_exits(const std::filesystem::path& file);

}  // namespace xos::bench
