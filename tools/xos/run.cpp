// xos run: an unmodified program in a cell.
#include <elf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <regex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>
#include <xos/mode.hpp>

#include "tools/xos/commands.hpp"

namespace xos::tool {

namespace {

namespace fs = std::filesystem;

// As env(1), nice(1) and the shell.
constexpr int own_failure = 125, not_executable = 126, not_found = 127;

struct run_options {
    std::string ring = "auto", transport = "auto";
    std::string malloc = "system";
    std::string stats, trace;  // as in XOS_STATS and XOS_TRACE
    bool quiet = false;
    std::string memory;
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
         {here / "../lib/libxos-preload.so", fs::path(XOS_PRELOAD_INSTALLED)}) {
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

struct file {
    int fd;
    explicit file(const char* path) : fd(open(path, O_RDONLY | O_CLOEXEC)) {}
    ~file() {
        if (fd >= 0) close(fd);
    }
    file(const file&) = delete;
    file& operator=(const file&) = delete;
};

/// A file that ends too early has no answer: the kernel will say what is wrong with it.
bool lacks_interpreter(int fd, const Elf64_Ehdr& header) {
    for (unsigned i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;
        const auto at = static_cast<off_t>(header.e_phoff + i * header.e_phentsize);
        if (pread(fd, &segment, sizeof segment, at) != sizeof segment) return false;
        if (segment.p_type == PT_INTERP) return false;
    }
    return true;
}

/// Why LD_PRELOAD would not reach this program, or nothing. Scripts are the kernel's business:
/// their interpreter decides.
std::string why_not_preloadable(const fs::path& program) {
    struct stat status;
    if (stat(program.c_str(), &status) == 0 && (status.st_mode & (S_ISUID | S_ISGID)) &&
        getuid() != 0) {
        return "is set-user-ID or set-group-ID: the dynamic linker ignores LD_PRELOAD for it";
    }
    const file f(program.c_str());
    Elf64_Ehdr header;
    if (f.fd < 0 || pread(f.fd, &header, sizeof header, 0) != sizeof header) return {};
    if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return {};
    if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64) {
        return "is not an x86-64 program";
    }
    if (lacks_interpreter(f.fd, header)) {
        return "is statically linked: there is no dynamic linker to preload into";
    }
    return {};
}

/// Before whatever is preloaded already.
void add_to_preload(const std::vector<fs::path>& libraries) {
    std::string all;
    for (const auto& library : libraries) all += (all.empty() ? "" : ":") + library.string();
    const char* others = std::getenv("LD_PRELOAD");
    if (others && *others) all += std::string(":") + others;
    setenv("LD_PRELOAD", all.c_str(), 1);
}

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

void set_log_variables(const run_options& options) {
    if (!is_off(options.stats)) {
        std::string value = "1";
        if (!is_plain(options.stats))
            value = std::string(json_prefix) +
                    log_file(options.stats.substr(json_prefix.size()), "--stats");
        setenv("XOS_STATS", value.c_str(), 1);
    }
    if (!is_off(options.trace)) {
        const std::string value =
            is_plain(options.trace) ? "1" : log_file(options.trace, "--trace");
        setenv("XOS_TRACE", value.c_str(), 1);
    }
}

std::string check_stats(const std::string& value) {
    const bool json = value.starts_with(json_prefix) && value.size() > json_prefix.size();
    return is_off(value) || is_plain(value) || json ? "" : value + " is not json:FILE";
}

/// What is wrong with a value of --pager, or nothing.
std::string is_pager(const std::string& text) {
    static const std::regex known("huge|demand|populate|window(:[1-9][0-9]{0,4})?");
    if (std::regex_match(text, known)) return "";
    return "is none of huge, demand, populate, window[:PAGES] (up to 99999)";
}

int run(const run_options& options) {
    const fs::path preload = find_preload();
    if (preload.empty()) {
        return fail(own_failure,
                    "libxos-preload.so is neither in ../lib nor in " XOS_PRELOAD_INSTALLED);
    }
    std::vector<fs::path> libraries{preload};
    if (options.malloc == "jemalloc") {
        constexpr const char* jemalloc = "libjemalloc.so.2";
        libraries.push_back(find_library(jemalloc));
        if (libraries.back().empty()) {
            return fail(own_failure,
                        std::string(jemalloc) +
                            " is not installed: apt-get install libjemalloc2, add its directory to "
                            "LD_LIBRARY_PATH, or use --malloc=system");
        }
    }
    const std::string& name = options.program.front();
    const fs::path program = search(name);
    if (program.empty()) return fail(not_found, name + ": not found");
    if (access(program.c_str(), X_OK) != 0)
        return fail(not_executable, name + ": " + std::strerror(errno));
    if (const std::string why = why_not_preloadable(program); !why.empty()) {
        return fail(not_executable, name + " " + why);
    }
    try {
        set_log_variables(options);
    } catch (const std::exception& e) {
        return fail(own_failure, e.what());
    }
    add_to_preload(libraries);
    setenv("XOS_MODE", mode_of_ring(options.ring).c_str(), 1);
    setenv("XOS_TRANSPORT", options.transport.c_str(), 1);
    if (options.quiet) setenv("XOS_QUIET", "1", 1);
    if (!options.memory.empty()) setenv("XOS_MEM", options.memory.c_str(), 1);
    if (!options.pager.empty()) setenv("XOS_PAGER", options.pager.c_str(), 1);
    std::vector<char*> words;
    for (const auto& word : options.program) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    execv(program.c_str(), words.data());
    return fail(not_executable, name + ": " + std::strerror(errno));
}

}  // namespace

void add_run(CLI::App& app, command_result& result) {
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
        ->add_option("--mem", options->memory,
                     "Bytes of anonymous memory to serve inside, such as 512M; 0: none "
                     "(default: half of the machine's)")
        ->envname("XOS_MEM");
    command
        ->add_option("--pager", options->pager,
                     "How that memory becomes resident: huge, demand, populate or window[:PAGES]")
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
    command->add_option("program", options->program, "The program and its arguments, after --")
        ->required();
    command->prefix_command(false);
    command->callback([options, &result] { result.status = run(*options); });
}

}  // namespace xos::tool
