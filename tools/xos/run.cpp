// xos run: an unmodified program in a cell.
#include "tools/xos/run.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <stdexcept>

#include "libxos/program/launch.hpp"

namespace xos::tool {

namespace {

namespace fs = std::filesystem;

// As env(1), nice(1) and the shell.
constexpr int own_failure = 125, not_executable = 126, not_found = 127;

int fail(int status, const std::string& text) {
    fmt::print(stderr, "xos run: {}\n", text);
    return status;
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

struct libraries {
    fs::path preload, loader;
    fs::path malloc;      ///< empty: the program's own
    std::string problem;  ///< what is to be said when one is missing
};

libraries find_libraries(const run_options& options) {
    libraries found;
    found.preload = find_preload();
    if (found.preload.empty()) {
        found.problem = "libxos-preload.so is neither in ../lib nor in " XOS_LIBRARIES_INSTALLED;
        return found;
    }
    found.loader = found.preload.parent_path() / "xos/xos-loader";
    if (options.malloc != "jemalloc") return found;
    constexpr const char* jemalloc = "libjemalloc.so.2";
    found.malloc = find_library(jemalloc);
    if (found.malloc.empty())
        found.problem = std::string(jemalloc) +
                        " is not installed: apt-get install libjemalloc2, add its directory to "
                        "LD_LIBRARY_PATH, or use --malloc=system";
    return found;
}

program::loading loading_of(const std::string& option) {
    if (option == "own") return program::loading::own;
    return option == "preload" ? program::loading::preload : program::loading::automatic;
}

std::vector<char*> words_of(const std::vector<std::string>& arguments) {
    std::vector<char*> words;
    for (const auto& word : arguments) words.push_back(const_cast<char*>(word.c_str()));
    return words;
}

/// Never returns when it succeeds.
int execute(const fs::path& program, std::vector<char*> words, char** environment,
            const std::string& name, const char* why) {
    words.push_back(nullptr);
    execve(program.c_str(), words.data(), environment);
    const int error = errno;
    std::string text = name + ": " + std::strerror(error);
    if (*why && (error == ENOENT || error == ENOEXEC)) text += std::string(": it ") + why;
    return fail(error == ENOENT ? not_found : not_executable, text);
}

/// Says why the program cannot be started as the options demand. The status.
int refuse(const program::launch_plan& plan, const std::string& name, const fs::path& loader) {
    using program::obstacle;
    if (plan.hindered_by == obstacle::unreadable)
        return fail(not_executable,
                    name + " cannot be read, so that only --loader=preload is left");
    if (plan.hindered_by == obstacle::loader_missing && access(loader.c_str(), X_OK) != 0)
        return fail(own_failure, loader.string() + ": " + std::strerror(errno));
    return fail(not_executable, name +
                                    " is statically linked, or has a dynamic linker that is not "
                                    "glibc's: use --loader=own or --loader=auto");
}

/// The program by its own name, or the loader with the program as its argument. A file that only
/// Linux knows how to execute (binfmt_misc) gets the same environment, for its interpreter.
int execute(const program::launch_plan& plan, const program::policy& libxos, const fs::path& path,
            const run_options& options) {
    const std::string& name = options.program.front();
    std::vector<char*> words = words_of(options.program);
    program_environment environment;
    try {
        environment.take(options);
    } catch (const std::exception& e) {
        return fail(own_failure, e.what());
    }
    environment.set("XOS_PRELOAD", libxos.library);
    environment.set("XOS_ALSO_PRELOAD", libxos.also);
    const bool own = plan.how == program::way::own;
    const char* others = std::getenv("LD_PRELOAD");
    if (!others) others = "";
    std::string preloaded(
        std::strlen(libxos.library) + std::strlen(libxos.also) + std::strlen(others) + 3, '\0');
    preloaded.resize(libxos.join(preloaded.data(), preloaded.size(), !own, others) - 1);
    if (*others)  // and its place
        setenv("LD_PRELOAD", preloaded.c_str(), 1);
    else if (!preloaded.empty())
        environment.set("LD_PRELOAD", preloaded);
    if (!own) return execute(path, words, environment.list(), name, plan.why);
    program::loader_words front;
    std::vector<char> text(program::loader_words::text_size + path.native().size());
    front.make({AT_FDCWD, path.c_str()}, -1, text.data());
    const auto first = const_cast<char**>(front.list);
    words.insert(words.begin(), first, first + front.count);
    return execute(plan.executed, words, environment.list(), plan.executed, "");
}

}  // namespace

int run(const run_options& options) {
    const libraries libxos = find_libraries(options);
    if (!libxos.problem.empty()) return fail(own_failure, libxos.problem);
    const std::string& name = options.program.front();
    const fs::path path = search(name);
    if (path.empty()) return fail(not_found, name + ": not found");
    if (access(path.c_str(), X_OK) != 0)
        return fail(not_executable, name + ": " + std::strerror(errno));

    const auto policy = std::make_unique<program::policy>();
    policy->way = loading_of(options.loader);
    policy->library = libxos.preload.c_str();
    policy->also = libxos.malloc.c_str();
    policy->loader = libxos.loader.c_str();
    program::program_file file;
    program::inspect(file, AT_FDCWD, path.c_str(), 0);
    const program::launch_plan plan = program::plan_launch(file, *policy, {});
    if (plan.hindered_by == program::obstacle::program) {
        fmt::print(stderr, "xos run: {} {}: it runs outside, natively\n", name, plan.why);
        return execute(path, words_of(options.program), environ, name, plan.why);
    }
    if (plan.hindered_by != program::obstacle::none) return refuse(plan, name, libxos.loader);
    return execute(plan, *policy, path, options);
}

}  // namespace xos::tool
