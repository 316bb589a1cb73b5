#include "bench/suites/app_processes.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <system_error>
#include <xos/cell.hpp>

#include "bench/harness.hpp"

namespace xos::bench {

namespace fs = std::filesystem;

namespace {

/// Beside this program in a build tree, or where it was installed.
fs::path preload_library() {
    const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
    for (const fs::path& candidate :
         {here / "../lib/libxos-preload.so", here / XOS_LIBRARIES_INSTALLED "/libxos-preload.so"})
        if (fs::exists(candidate)) return fs::canonical(candidate);
    throw std::runtime_error(
        "libxos-preload.so is neither in ../lib nor in " XOS_LIBRARIES_INSTALLED);
}

}  // namespace

std::string find_program(const std::string& name) {
    const char* path = std::getenv("PATH");
    const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
    std::istringstream folders(here.string() + ':' + (path ? path : "") + ":/usr/sbin:/sbin");
    for (std::string folder; std::getline(folders, folder, ':');) {
        const fs::path candidate = fs::path(folder) / name;
        if (!folder.empty() && access(candidate.c_str(), X_OK) == 0) return candidate;
    }
    return {};
}

std::vector<std::string> in_a_cell() {
    const cell_options& o = options_of_cell();
    return {"LD_PRELOAD=" + preload_library().string(), std::string("XOS_MODE=") + name(o.mode),
            std::string("XOS_TRANSPORT=") + name(o.transport)};
}

std::vector<std::string> in_a_cell_with_stats(const fs::path& file) {
    auto variables = in_a_cell();
    variables.push_back("XOS_STATS=json:" + file.string());
    return variables;
}

fs::path scratch() {
    const fs::path directory = fs::temp_directory_path() / fmt::format("xos-bench-{}", getppid());
    fs::create_directories(directory);
    return directory;
}

void remove_scratch() {
    fs::current_path("/");
    fs::remove_all(scratch());
}

pid_t start_program(const command& words, const std::vector<std::string>& variables) {
    std::vector<char*> argv, environment;
    for (const auto& word : words) argv.push_back(const_cast<char*>(word.c_str()));
    argv.push_back(nullptr);
    for (const auto& variable : variables)
        environment.push_back(const_cast<char*>(variable.c_str()));
    for (char** e = environ; *e; e++) environment.push_back(*e);
    environment.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    pid_t pid = -1;
    const int error =
        posix_spawnp(&pid, argv[0], &actions, nullptr, argv.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    if (error) throw std::system_error(error, std::generic_category(), words.front());
    return pid;
}

rusage end_of_program(pid_t pid, const command& words) {
    int status = 0;
    rusage used{};
    while (wait4(pid, &status, 0, &used) < 0) {
        if (errno != EINTR) throw std::system_error(errno, std::generic_category(), "wait4");
    }
    if (status)
        throw std::runtime_error(
            fmt::format("{} ended with wait status {}", words.front(), status));
    return used;
}

rusage run_program(const command& words, const std::vector<std::string>& variables) {
    return end_of_program(start_program(words, variables), words);
}

std::vector<cell_report> read_reports(const fs::path& file) {
    std::vector<cell_report> reports;
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
        const auto report = nlohmann::json::parse(line);
        reports.push_back({report.at("runs").get<std::uint64_t>(),
                           report.at("faults").value("PF", std::uint64_t{0})});
    }
    return reports;
}

std::uint64_t count_exits(const fs::path& file) {
    std::uint64_t exits = 0;
    for (const auto& report : read_reports(file)) exits += report.exits;
    return exits;
}

}  // namespace xos::bench
