// xos run: an unmodified program in a cell.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <initializer_list>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>
#include <xos/mode.hpp>

#include "libxos/program/policy.hpp"
#include "libxos/program/program_file.hpp"
#include "tools/xos/commands.hpp"

namespace xos::tool {

namespace {

namespace fs = std::filesystem;

// As env(1), nice(1) and the shell.
constexpr int own_failure = 125, not_executable = 126, not_found = 127;

struct run_options {
    std::string ring = "auto", transport = "auto";
    std::string malloc = "system", loader = "auto", follow = "all", fallback = "auto";
    std::string stats, trace;  // as in XOS_STATS and XOS_TRACE
    bool quiet = false;
    std::string memory;
    std::string vcpus;
    std::string pager;
    std::vector<std::string> program;
};

std::string mode_of_ring(const std::string& ring) {
    if (ring == "0") return "ring0";
    if (ring == "3") return "ring3";
    return ring;
}

/// The preload library: beside this program in a build tree, or where it was installed.
fs::path find_preload() {
    const fs::path here = fs::read_symlink("/proc/self/exe").parent_path();
    for (const fs::path& candidate :
         {here / "../lib/libxos-preload.so", here / XOS_LIBRARIES_INSTALLED "/libxos-preload.so"}) {
        std::error_code ignored;
        if (fs::exists(candidate, ignored)) return fs::canonical(candidate);
    }
    return {};
}

/// Where the dynamic linker would find a library of this name, as far as that is likely; else
/// empty.
fs::path find_library(const char* name) {
    const char* path = std::getenv("LD_LIBRARY_PATH");
    std::string all = path ? path : "";
    all +=
        ":/usr/local/lib:/lib/x86_64-linux-gnu:/usr/lib/x86_64-linux-gnu:/lib64:/usr/lib64:/lib:/"
        "usr/lib";
    for (std::string_view rest = all; !rest.empty();) {
        const auto end = rest.find(':');
        const std::string_view directory = rest.substr(0, end);
        rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
        const fs::path candidate = fs::path(directory) / name;
        std::error_code ignored;
        if (!directory.empty() && fs::is_regular_file(candidate, ignored))
            return fs::absolute(candidate);
    }
    return {};
}

/// What execvp(3) would run; empty when there is nothing of that name.
fs::path search(const std::string& name) {
    if (name.find('/') != std::string::npos) return fs::exists(name) ? fs::path(name) : fs::path();
    const char* path = std::getenv("PATH");
    std::string_view rest = path ? path : "/bin:/usr/bin";
    while (true) {
        const auto end = rest.find(':');
        const std::string_view directory = rest.substr(0, end);
        const fs::path candidate = fs::path(directory.empty() ? "." : directory) / name;
        if (access(candidate.c_str(), X_OK) == 0 && fs::is_regular_file(candidate))
            return candidate;
        if (end == std::string_view::npos) return {};
        rest.remove_prefix(end + 1);
    }
}

/// The environment of the program: what libxos wants to know in front, where it is told apart
/// easily in /proc/PID/environ.
class program_environment {
  public:
    void set(const std::string& name, const std::string& value) {
        own_.push_back(name + "=" + value);
    }
    /// Null at the end; lives as long as this.
    char** list() {
        all_.clear();
        for (std::string& variable : own_) all_.push_back(variable.data());
        std::size_t hidden = own_.size();
        for (char** e = environ; *e; e++) {
            if (is_set(*e)) continue;
            all_.push_back(*e);
            hidden += program::is_reserved(*e);
        }
        if (hidden % 2) all_.insert(all_.begin(), padding_.data());
        all_.push_back(nullptr);
        return all_.data();
    }

  private:
    bool is_set(const char* variable) const {
        const std::string_view name(variable, std::strcspn(variable, "=") + 1);
        return std::any_of(own_.begin(), own_.end(),
                           [&](const std::string& own) { return own.starts_with(name); });
    }

    std::vector<std::string> own_;
    std::string padding_ = program::padding_variable;
    std::vector<char*> all_;
};

int fail(int status, const std::string& text) {
    fmt::print(stderr, "xos run: {}\n", text);
    return status;
}

constexpr std::string_view json_prefix = "json:";

bool is_off(const std::string& value) {
    return value.empty() || value == "0";
}

/// The variable's value, or the flag alone.
bool is_plain(const std::string& value) {
    return value == "1" || value == "true";
}

/// A file that every process of the program is to append to, by a name that holds in any working
/// directory; throws what is to be said when it cannot be written.
std::string log_file(const std::string& name, const char* option) {
    const std::string file = fs::absolute(name).string();
    struct stat status;
    const bool exists = stat(file.c_str(), &status) == 0;
    // Opening a pipe would wait for its reader, or make it think that all had been said.
    if (exists && S_ISFIFO(status.st_mode)) return file;
    const int fd = open(file.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0)
        throw std::runtime_error(fmt::format("{}: {}: {}", option, name, std::strerror(errno)));
    close(fd);
    return file;
}

void set_log_variables(const run_options& options, program_environment& environment) {
    if (!is_off(options.stats)) {
        std::string value = "1";
        if (!is_plain(options.stats))
            value = std::string(json_prefix) +
                    log_file(options.stats.substr(json_prefix.size()), "--stats");
        environment.set("XOS_STATS", value);
    }
    if (!is_off(options.trace)) {
        const std::string value =
            is_plain(options.trace) ? "1" : log_file(options.trace, "--trace");
        environment.set("XOS_TRACE", value);
    }
}

std::string check_stats(const std::string& value) {
    const bool json = value.starts_with(json_prefix) && value.size() > json_prefix.size();
    return is_off(value) || is_plain(value) || json ? "" : value + " is not json:FILE";
}

/// Never returns when it succeeds.
int execute(const fs::path& program, const std::vector<std::string>& arguments, char** environment,
            const std::string& name, const char* why) {
    std::vector<char*> words;
    for (const auto& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execve(program.c_str(), words.data(), environment);
    const int error = errno;
    std::string text = name + ": " + std::strerror(error);
    if (*why && (error == ENOENT || error == ENOEXEC)) text += std::string(": it ") + why;
    return fail(error == ENOENT ? not_found : not_executable, text);
}

/// Through the loader; `program` is told as what the program was started.
int execute_in_loader(const fs::path& loader, const fs::path& program,
                      const std::vector<std::string>& arguments, char** environment) {
    std::vector<std::string> words{"xos-loader", "--program=" + program.string(), "--"};
    words.insert(words.end(), arguments.begin(), arguments.end());
    return execute(loader, words, environment, loader.string(), "");
}

std::string joined(std::initializer_list<std::string> pieces) {
    std::string all;
    for (const std::string& piece : pieces) {
        if (!piece.empty()) all += (all.empty() ? "" : ":") + piece;
    }
    return all;
}

/// What is wrong with a value of --pager, or nothing.
std::string is_pager(const std::string& text) {
    static const std::regex known("system|huge|demand|populate|window(:[1-9][0-9]{0,4})?");
    if (std::regex_match(text, known)) return "";
    return "is none of system, huge, demand, populate, window[:PAGES] (up to 99999)";
}

int run(const run_options& options) {
    const fs::path library = find_preload();
    if (library.empty()) {
        return fail(own_failure,
                    "libxos-preload.so is neither in ../lib nor in " XOS_LIBRARIES_INSTALLED);
    }
    const fs::path loader = library.parent_path() / "xos/xos-loader";
    fs::path also;
    if (options.malloc == "jemalloc") {
        constexpr const char* jemalloc = "libjemalloc.so.2";
        also = find_library(jemalloc);
        if (also.empty()) {
            return fail(own_failure,
                        std::string(jemalloc) +
                            " is not installed: apt-get install libjemalloc2, add its directory to "
                            "LD_LIBRARY_PATH, or use --malloc=system");
        }
    }
    const std::string& name = options.program.front();
    const fs::path path = search(name);
    if (path.empty()) return fail(not_found, name + ": not found");
    if (access(path.c_str(), X_OK) != 0)
        return fail(not_executable, name + ": " + std::strerror(errno));

    program::program_file file;
    program::inspect(file, AT_FDCWD, path.c_str(), 0);
    using program::verdict;
    if (file.what == verdict::outside) {
        fmt::print(stderr, "xos run: {} {}: it runs outside, natively\n", name, file.why);
        return execute(path, options.program, environ, name, file.why);
    }
    const bool loadable = file.what == verdict::loadable || file.what == verdict::preloadable;
    if (options.loader == "own" && file.what == verdict::unreadable)
        return fail(not_executable,
                    name + " cannot be read, so that only --loader=preload is left");
    const bool own = loadable && (options.loader == "own" || file.what == verdict::loadable);
    if (own && options.loader == "preload") {
        return fail(not_executable,
                    name +
                        " is statically linked, or has a dynamic linker that is not "
                        "glibc's: use --loader=own or --loader=auto");
    }
    if (own && access(loader.c_str(), X_OK) != 0)
        return fail(own_failure, loader.string() + ": " + std::strerror(errno));

    program_environment environment;
    environment.set("XOS_MODE", mode_of_ring(options.ring));
    environment.set("XOS_TRANSPORT", options.transport);
    environment.set("XOS_LOADER", options.loader);
    environment.set("XOS_FOLLOW", options.follow);
    environment.set("XOS_FALLBACK", options.fallback);
    try {
        set_log_variables(options, environment);
    } catch (const std::exception& e) {
        return fail(own_failure, e.what());
    }
    if (options.quiet) environment.set("XOS_QUIET", "1");
    if (!options.memory.empty()) environment.set("XOS_MEM", options.memory);
    if (!options.vcpus.empty()) environment.set("XOS_VCPUS", options.vcpus);
    if (!options.pager.empty()) environment.set("XOS_PAGER", options.pager);
    environment.set("XOS_PRELOAD", library.string());
    environment.set("XOS_ALSO_PRELOAD", also.string());
    const char* others = std::getenv("LD_PRELOAD");
    const std::string preloaded =
        joined({own ? "" : library.string(), also.string(), others ? others : ""});
    if (others && *others)  // and its place
        setenv("LD_PRELOAD", preloaded.c_str(), 1);
    else if (!preloaded.empty())
        environment.set("LD_PRELOAD", preloaded);
    return own ? execute_in_loader(loader, path, options.program, environment.list())
               : execute(path, options.program, environment.list(), name, file.why);
}

/// Shortens the command line by what follows the program. Those words are the program's as they
/// are; CLI11 would take an option among them for its own, and make two of "[a,b]".
std::vector<std::string> take_arguments(CLI::App& command, int& argc, char** argv) {
    if (argc < 2 || argv[1] != command.get_name()) return {};
    int i = 2;
    for (; i < argc; i++) {
        const std::string_view word = argv[i];
        if (word == "--") i++;
        if (word == "--" || word.size() < 2 || word.front() != '-') break;
        const CLI::Option* option = command.get_option_no_throw(argv[i]);
        if (option && option->get_items_expected_min() > 0) i++;  // its value
    }
    const int after = std::min(i + 1, argc);
    const std::vector<std::string> arguments(argv + after, argv + argc);
    argc = after;
    return arguments;
}

}  // namespace

void add_run(CLI::App& app, command_result& result, int& argc, char** argv) {
    auto options = std::make_shared<run_options>();
    CLI::App* command = app.add_subcommand("run", "Run a program in a cell");
    command->add_option("--ring", options->ring, "Where the program runs: auto, 0, 3, or pvm")
        ->check(CLI::IsMember({"auto", "0", "3", "pvm", "ring0", "ring3"}))
        ->envname("XOS_MODE")
        ->capture_default_str();
    command
        ->add_option("--transport", options->transport,
                     "How system calls reach Linux: auto, exit, or module (the kernel module)")
        ->check(CLI::IsMember({"auto", "exit", "module"}))
        ->envname("XOS_TRANSPORT")
        ->capture_default_str();
    command
        ->add_option(
            "--malloc", options->malloc,
            "The program's malloc: system, its own; or jemalloc, whose memory is then mapped "
            "without exits")
        ->check(CLI::IsMember({"system", "jemalloc"}))
        ->envname("XOS_MALLOC")
        ->capture_default_str();
    command
        ->add_option("--loader", options->loader,
                     "How the program gets into the cell: preload, by the dynamic linker; own, by "
                     "libxos's loader; auto: preload where that reaches the program")
        ->check(CLI::IsMember({"auto", "own", "preload"}))
        ->envname("XOS_LOADER")
        ->capture_default_str();
    command
        ->add_option("--follow", options->follow,
                     "Which programs that it executes run in cells, too: all or none")
        ->check(CLI::IsMember({"all", "none"}))
        ->envname("XOS_FOLLOW")
        ->capture_default_str();
    command
        ->add_option("--fallback", options->fallback,
                     "When there can be no cell, such as without rights to /dev/kvm: fail, or run "
                     "the program outside, natively; auto: fail, but programs that it executes run "
                     "outside")
        ->check(CLI::IsMember({"auto", "fail", "outside"}))
        ->envname("XOS_FALLBACK")
        ->capture_default_str();
    command
        ->add_option("--mem", options->memory,
                     "Bytes of anonymous memory to serve inside, such as 512M; 0: none "
                     "(default: half of the machine's)")
        ->envname("XOS_MEM");
    command
        ->add_option("--vcpus", options->vcpus,
                     "How many threads the program can have at a time, up to 4096 (default: 1024)")
        ->check(CLI::Range(1, 4096))
        ->envname("XOS_VCPUS");
    command
        ->add_option("--pager", options->pager,
                     "How that memory becomes resident: system, huge, demand, populate or window[:PAGES]")
        ->check(is_pager)
        ->envname("XOS_PAGER");
    // Flags, so that the word behind one is never taken for its value.
    command
        ->add_flag("--stats", options->stats,
                   "At the end of each process print entries, exits, system calls and faults to "
                   "stderr; --stats=json:FILE appends them to FILE, an object a line")
        ->check(check_stats)
        ->envname("XOS_STATS");
    command
        ->add_flag("--trace", options->trace,
                   "Log every system call to stderr; --trace=FILE appends to FILE")
        ->envname("XOS_TRACE");
    command
        ->add_flag("--quiet", options->quiet,
                   "No line on stderr about a system call that cannot be supported")
        ->envname("XOS_QUIET");
    auto name = std::make_shared<std::string>();
    command->add_option("program", *name, "The program; what follows are its arguments")
        ->required();
    const std::vector<std::string> arguments = take_arguments(*command, argc, argv);
    command->callback([options, name, arguments, &result] {
        options->program = {*name};
        options->program.insert(options->program.end(), arguments.begin(), arguments.end());
        result.status = run(*options);
    });
}

}  // namespace xos::tool
