// Where benchmarks run.
#include "tools/xos/bench_engines.hpp"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "bench/report.hpp"

namespace xos::tool {

namespace {

namespace fs = std::filesystem;

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

/// Where the machine finds what is taken along. The benchmarks look for the library beside `bin`.
constexpr const char *benchmarks_there = "/usr/bin/xos-bench",
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

words emulated_command(const engine& e, const bench_words& w,
                       const std::vector<fs::path>& programs) {
    words command{find_machine(e.name),
                  "--icount",
                  "--timeout",
                  "600",
                  "--file",
                  find_benchmarks().string() + '=' + benchmarks_there};
    if (!w.module.empty())
        command.insert(command.end(), {"--module", fs::canonical(w.module).string()});
    words environment;
    take_along(programs, command, environment);
    command.push_back("--");
    command.insert(command.end(), environment.begin(), environment.end());
    command.push_back(benchmarks_there);
    return command;
}

words benchmark_words(const engine& e, const bench_words& w) {
    words all = w.everywhere;
    if (emulated(e)) {
        all.insert(all.begin(), "--unit=instructions");
        if (!w.has_mode) all.push_back("--mode=ring0");
    } else if (!w.unit.empty()) {
        all.push_back("--unit=" + w.unit);
    }
    return all;
}

volatile sig_atomic_t running_child = 0, stopped = 0;

/// What would end this process ends the child, and what that has told is kept.
class stop_signals {
  public:
    stop_signals() {
        struct sigaction action {};
        action.sa_handler = [](int) {
            stopped = 1;
            if (running_child > 0) kill(running_child, SIGINT);
        };
        action.sa_flags = SA_RESTART;
        sigaction(SIGINT, &action, &interrupt_);
        sigaction(SIGTERM, &action, &terminate_);
    }
    ~stop_signals() {
        sigaction(SIGINT, &interrupt_, nullptr);
        sigaction(SIGTERM, &terminate_, nullptr);
    }
    stop_signals(const stop_signals&) = delete;
    stop_signals& operator=(const stop_signals&) = delete;

  private:
    struct sigaction interrupt_ {
    }, terminate_{};
};

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

    pid_t child() const { return child_; }

    /// As a shell reports it.
    int status() const {
        int status = 0;
        while (waitpid(child_, &status, 0) < 0 && errno == EINTR) {
        }
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

  private:
    pid_t child_ = 0;
    FILE* stream_ = nullptr;
};

/// What the benchmarks start.
std::vector<fs::path> find_programs(const words& command) {
    std::vector<fs::path> found;
    std::string missing;
    std::istringstream lines(output_of(command).text);
    for (std::string name, package, path; lines >> name >> package >> std::ws;) {
        std::getline(lines, path);
        if (path != "-") {
            found.emplace_back(path);
            continue;
        }
        missing += (missing.empty() ? "" : "\n") + name + " is missing; " +
                   (package == "-" ? "it is built with libxos's examples"
                                   : "install the package " + package +
                                         ", or all such ones by tools/setup.sh bench");
    }
    if (!missing.empty()) throw std::runtime_error(missing);
    return found;
}

void check_emulator(const engine& e) {
    if (!e.emulator) return;
    const char* path = std::getenv("PATH");
    std::istringstream folders(path ? path : "");
    for (std::string folder; std::getline(folders, folder, ':');) {
        if (access((folder + '/' + e.emulator).c_str(), X_OK) == 0) return;
    }
    throw std::runtime_error(std::string(e.emulator) + " is missing; install the package " +
                             e.package + ", or all that the tests need by tools/setup.sh test");
}

}  // namespace

const std::vector<engine>& all_engines() {
    static const std::vector<engine> all{
        {"native", nullptr, nullptr, 300},
        {"qemu-svm", "qemu-system-x86_64", "qemu-system-x86", 100},
        // The script builds it, and says what is missing.
        {"bochs-vmx", nullptr, nullptr, 120},
    };
    return all;
}

bool emulated(const engine& e) {
    return &e != &all_engines().front();
}

words listing(const engine& e, const bench_words& w, const std::string& what) {
    words command{find_benchmarks(), what};
    const words more = benchmark_words(e, w);
    command.insert(command.end(), more.begin(), more.end());
    return command;
}

output output_of(const words& command) {
    reader lines(command);
    output all;
    for (std::string line; lines.next(line);) all.text += line;
    all.status = lines.status();
    return all;
}

int run_engine(const engine& e, const bench_words& w, const machine_line_sink& object,
               const text_sink& text) {
    words command{find_benchmarks()};
    if (emulated(e)) {
        const auto programs = find_programs(listing(e, w, "--programs"));
        check_emulator(e);
        command = emulated_command(e, w, programs);
    }
    const words more = benchmark_words(e, w);
    command.insert(command.end(), more.begin(), more.end());
    command.insert(command.end(), {"--machine-lines", std::string("--engine=") + e.name});
    if (std::none_of(more.begin(), more.end(),
                     [](const auto& word) { return word.rfind("--row-seconds=", 0) == 0; }))
        command.push_back("--row-seconds=" + std::to_string(e.row_seconds));
    const stop_signals signals;
    reader lines(command);
    running_child = lines.child();
    for (std::string line; lines.next(line);) {
        const std::string_view prefix = bench::machine_line;
        if (line.rfind(prefix, 0) != 0) {
            text(line);
        } else if (const auto json = nlohmann::ordered_json::parse(
                       line.begin() + static_cast<std::ptrdiff_t>(prefix.size()), line.end(),
                       nullptr, false);
                   !json.is_discarded()) {
            object(json);
        } else if (!stopped) {
            throw std::runtime_error("the benchmarks wrote a line that is no JSON: " + line);
        }
    }
    running_child = 0;
    const int status = lines.status();
    return stopped ? 130 : status;
}

}  // namespace xos::tool
