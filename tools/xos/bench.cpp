// xos bench: the benchmarks, on this machine or on an emulated one.
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <initializer_list>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "bench/options.hpp"
#include "bench/report.hpp"
#include "tools/xos/commands.hpp"

namespace xos::tool {

namespace {

namespace fs = std::filesystem;
using words = std::vector<std::string>;

struct bench_options {
    std::string engine = "native", module;
    bench::options of_benchmarks;
    /// Those again, as words: all, and what is the same on an emulated machine.
    words all, same_there;
    bool has_mode = false;
};

fs::path first_of(std::initializer_list<fs::path> candidates, const std::string& what) {
    std::string looked_at;
    for (const auto& candidate : candidates) {
        std::error_code ignored;
        if (fs::exists(candidate, ignored)) return fs::canonical(candidate);
        looked_at += "\n  " + candidate.lexically_normal().string();
    }
    throw std::runtime_error(what + " is in none of these places:" + looked_at);
}

/// Beside this program in a build tree, or where it was installed.
fs::path find_preload() {
    const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
    return first_of(
        {here / "../lib/libxos-preload.so", here / XOS_LIBRARIES_INSTALLED "/libxos-preload.so"},
        "libxos-preload.so");
}

fs::path find_benchmarks() {
    const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
    return first_of({here / "xos-bench", here / "../libexec/xos/xos-bench"},
                    "the program with the benchmarks");
}

fs::path find_machine(const std::string& engine) {
    const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
    const std::string script = engine + ".sh";
    return first_of({here / "../share/xos/engines" / script,
                     fs::path(XOS_SOURCE_DIR "/tests/engines") / script},
                    "the script that runs the emulated machine");
}

class argument_vector {
  public:
    explicit argument_vector(const words& all) {
        for (const auto& w : all) pointers_.push_back(const_cast<char*>(w.c_str()));
        pointers_.push_back(nullptr);
    }
    char* const* get() const { return pointers_.data(); }

  private:
    std::vector<char*> pointers_;
};

[[noreturn]] void become(const words& command) {
    execv(command.front().c_str(), argument_vector(command).get());
    throw std::system_error(errno, std::system_category(), command.front());
}

int native(const bench_options& o) {
    words command{find_benchmarks()};
    command.insert(command.end(), o.all.begin(), o.all.end());
    become(command);
}

/// Where the machine finds what is taken along. The benchmarks look for the library beside `bin`.
constexpr const char *benchmarks_there = "/usr/bin/xos-bench", *limits_there = "/limits.json",
                     *preload_there = "/usr/lib/libxos-preload.so";

/// Whole programs are taken to where they are here, and with them what makes cells of them.
void take_along(const std::vector<fs::path>& programs, words& command, words& environment) {
    if (programs.empty()) return;
    std::set<std::string> folders{"/usr/bin", "/usr/sbin"};
    for (const auto& path : programs) {
        command.insert(command.end(), {"--program", path.string()});
        folders.insert(path.parent_path());
    }
    command.insert(command.end(), {"--mem", "2048", "--timeout", "1200", "--file",
                                   find_preload().string() + '=' + preload_there});
    std::string path = "PATH=";
    for (const auto& folder : folders) path += (path.back() == '=' ? "" : ":") + folder;
    environment = {"/usr/bin/env", path};
}

words emulated_command(const bench_options& o, const std::vector<fs::path>& programs) {
    const std::string& limits = o.of_benchmarks.limits_file;
    words command{find_machine(o.engine),
                  "--icount",
                  "--timeout",
                  "600",
                  "--file",
                  find_benchmarks().string() + '=' + benchmarks_there};
    if (!o.module.empty()) {
        command.insert(command.end(), {"--module", fs::canonical(o.module).string()});
    }
    if (!limits.empty()) {
        command.insert(command.end(),
                       {"--file", fs::canonical(limits).string() + '=' + limits_there});
    }
    words environment;
    take_along(programs, command, environment);
    command.push_back("--");
    command.insert(command.end(), environment.begin(), environment.end());
    command.insert(command.end(),
                   {benchmarks_there, "--unit=instructions", "--engine=" + o.engine});
    if (!o.has_mode) command.push_back("--mode=ring0");
    if (!o.of_benchmarks.json.empty()) command.push_back("--json=-");
    if (!limits.empty()) command.push_back(std::string("--limits=") + limits_there);
    command.insert(command.end(), o.same_there.begin(), o.same_there.end());
    return command;
}

/// A command whose standard output is ours to read.
class reader {
  public:
    explicit reader(const words& command) {
        int ends[2];
        if (pipe(ends) != 0) throw std::system_error(errno, std::system_category(), "pipe");
        posix_spawn_file_actions_t actions;
        posix_spawn_file_actions_init(&actions);
        posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
        posix_spawn_file_actions_addclose(&actions, ends[0]);
        posix_spawn_file_actions_addclose(&actions, ends[1]);
        const int failed = posix_spawn(&child_, command.front().c_str(), &actions, nullptr,
                                       argument_vector(command).get(), environ);
        posix_spawn_file_actions_destroy(&actions);
        close(ends[1]);
        stream_ = fdopen(ends[0], "r");
        if (failed) throw std::system_error(failed, std::system_category(), command.front());
    }
    ~reader() { std::fclose(stream_); }
    reader(const reader&) = delete;
    reader& operator=(const reader&) = delete;

    /// A line with its end; false when there are no more.
    bool next(std::string& line) {
        line.clear();
        for (int c; (c = std::fgetc(stream_)) != EOF;) {
            line += static_cast<char>(c);
            if (c == '\n') break;
        }
        return !line.empty();
    }

    /// As a shell reports it.
    int status() {
        int status = 0;
        while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

  private:
    pid_t child_ = 0;
    FILE* stream_ = nullptr;
};

/// Passes the output on, but for what lies between the markers: that goes into the file.
int run_and_extract(const words& command, const std::string& path) {
    reader output(command);
    std::string json;
    bool within = false;
    for (std::string line; output.next(line);) {
        const std::string_view text(line.data(), line.size() - (line.back() == '\n'));
        if (text == bench::json_begin) {
            within = true;
        } else if (text == bench::json_end) {
            within = false;
        } else if (within) {
            json += line;
        } else {
            std::fputs(line.c_str(), stdout);
            std::fflush(stdout);
        }
    }
    const int status = output.status();
    if (json.empty() || within) {
        std::fprintf(stderr,
                     "xos bench: the machine has written no results, so %s is not written\n",
                     path.c_str());
        return status ? status : status_failed;
    }
    std::ofstream file(path);
    file << json;
    if (!file.flush()) throw std::runtime_error("cannot write " + path);
    return status;
}

/// What is wrong with the words is told at once, and not when the machine has booted.
int check(const words& listing) {
    reader output(listing);
    for (std::string line; output.next(line);) {
    }
    return output.status();
}

/// What the benchmarks start. Nothing if a program is missing; then a line has said which.
std::optional<std::vector<fs::path>> find_programs(const words& listing) {
    std::vector<fs::path> found;
    bool all = true;
    reader output(listing);
    for (std::string line; output.next(line);) {
        std::istringstream text(line);
        std::string name, package, path;
        text >> name >> package >> std::ws;
        std::getline(text, path);
        if (path != "-") {
            found.emplace_back(path);
            continue;
        }
        all = false;
        const std::string advice =
            package == "-"
                ? "it is built with libxos's examples"
                : "install the package " + package + ", or all such ones by tools/setup.sh bench";
        std::fprintf(stderr, "xos bench: %s is missing; %s\n", name.c_str(), advice.c_str());
    }
    if (!all) return std::nullopt;
    return found;
}

int bench(const bench_options& o) {
    if (o.engine == "native") {
        if (!o.module.empty()) {
            throw CLI::ValidationError("--module", "only an emulated machine loads it: --engine");
        }
        return native(o);
    }
    words listing{find_benchmarks(), o.of_benchmarks.only_programs ? "--programs" : "--list",
                  "--unit=instructions"};
    listing.insert(listing.end(), o.same_there.begin(), o.same_there.end());
    if (o.of_benchmarks.only_list || o.of_benchmarks.only_programs) become(listing);
    if (const int status = check(listing)) return status;
    listing[1] = "--programs";
    const auto programs = find_programs(listing);
    if (!programs) return status_failed;
    const words command = emulated_command(o, *programs);
    const std::string& json = o.of_benchmarks.json;
    if (json.empty() || json == "-") become(command);
    return run_and_extract(command, json);
}

/// The options that were given, but for some.
words given(const CLI::App& command, std::initializer_list<std::string_view> but) {
    words all;
    for (const CLI::Option* option : command.get_options()) {
        if (option->count() == 0 || option->get_lnames().empty()) continue;
        const std::string& name = option->get_lnames().front();
        if (std::find(but.begin(), but.end(), name) != but.end()) continue;
        if (option->get_items_expected_max() == 0) {
            all.push_back("--" + name);
        } else {
            for (const auto& value : option->results()) all.push_back("--" + name + '=' + value);
        }
    }
    return all;
}

}  // namespace

void add_bench(CLI::App& app, command_result& result) {
    auto options = std::make_shared<bench_options>();
    CLI::App* command = app.add_subcommand("bench", "Measure libxos beside Linux");
    command
        ->add_option("--engine", options->engine,
                     "native, or an emulated machine, where instructions are counted: qemu-svm or "
                     "bochs-vmx")
        ->check(CLI::IsMember({"native", "qemu-svm", "bochs-vmx"}))
        ->capture_default_str();
    command->add_option("--module", options->module,
                        "A kernel module for the emulated machine to load: xos.ko");
    bench::add_options(*command, options->of_benchmarks);
    command->allow_extras();
    command->callback([command, options, &result] {
        bench::refuse_unknown(*command);
        options->has_mode = command->get_option("--mode")->count() != 0;
        options->all = given(*command, {"engine", "module"});
        options->same_there = given(*command, {"engine", "module", "json", "limits", "unit"});
        result.status = bench(*options);
    });
}

}  // namespace xos::tool
