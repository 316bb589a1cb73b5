#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "libxos/program/policy.hpp"
#include "tools/xos/run.hpp"

namespace xos::tool {

namespace {

std::string mode_of_ring(const std::string& ring) {
    if (ring == "0") return "ring0";
    if (ring == "3") return "ring3";
    return ring;
}

/// A file that every process of the program is to append to, by a name that holds in any working
/// directory; throws what is to be said when it cannot be written.
std::string log_file(const std::string& name, const char* option) {
    const std::string file = std::filesystem::absolute(name).string();
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

}  // namespace

bool is_off(const std::string& value) {
    return value.empty() || value == "0";
}

/// The variable's value, or the flag alone.
bool is_plain(const std::string& value) {
    return value == "1" || value == "true";
}

void program_environment::set(const std::string& name, const std::string& value) {
    own_.push_back(name + "=" + value);
}

void program_environment::take(const run_options& options) {
    set("XOS_MODE", mode_of_ring(options.ring));
    set("XOS_TRANSPORT", options.transport);
    if (options.event_loops != "plain") set("XOS_EVENT_LOOPS", options.event_loops);
    set("XOS_LOADER", options.loader);
    set("XOS_FOLLOW", options.follow);
    set("XOS_FALLBACK", options.fallback);

    if (!is_off(options.stats)) {
        std::string value = "1";
        if (!is_plain(options.stats))
            value = std::string(json_prefix) +
                    log_file(options.stats.substr(json_prefix.size()), "--stats");
        set("XOS_STATS", value);
    }
    if (!is_off(options.trace)) {
        const std::string value =
            is_plain(options.trace) ? "1" : log_file(options.trace, "--trace");
        set("XOS_TRACE", value);
    }
    if (options.quiet) set("XOS_QUIET", "1");
    if (!options.memory.empty()) set("XOS_MEM", options.memory);
    if (!options.vcpus.empty()) set("XOS_VCPUS", options.vcpus);
    if (!options.pager.empty()) set("XOS_PAGER", options.pager);
}

char** program_environment::list() {
    all_.clear();
    for (std::string& variable : own_) all_.push_back(variable.data());
    std::size_t hidden = own_.size();
    for (char** e = environ; *e; e++) {
        if (is_set(*e)) continue;
        all_.push_back(*e);
        hidden += program::is_reserved(*e);
    }
    padding_ = program::padding_variable;
    if (hidden % 2) all_.insert(all_.begin(), padding_.data());
    all_.push_back(nullptr);
    return all_.data();
}

bool program_environment::is_set(const char* variable) const {
    const std::string_view name(variable, std::strcspn(variable, "=") + 1);
    return std::any_of(own_.begin(), own_.end(),
                       [&](const std::string& own) { return own.starts_with(name); });
}

}  // namespace xos::tool
