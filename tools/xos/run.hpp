// `xos run`: its options, the environment that they become, and what is executed.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace xos::tool {

struct run_options {
    std::string ring = "auto", transport = "auto";
    std::string event_loops = "plain";
    std::string malloc = "system", loader = "auto", follow = "all", fallback = "auto";
    std::string stats, trace;  // as in XOS_STATS and XOS_TRACE
    bool quiet = false;
    std::string memory;
    std::string vcpus;
    std::string pager;
    std::vector<std::string> program;
};

inline constexpr std::string_view json_prefix = "json:";

/// A log that nobody wants, or one on standard error.
bool is_off(const std::string& value);
bool is_plain(const std::string& value);

/// The environment of the program: what libxos wants to know in front, where it is told apart
/// easily in /proc/PID/environ.
class program_environment {
  public:
    void set(const std::string& name, const std::string& value);
    /// What concerns libxos itself; throws what is to be said when a log cannot be written.
    void take(const run_options& options);
    /// Null at the end; lives as long as this.
    char** list();

  private:
    bool is_set(const char* variable) const;

    std::vector<std::string> own_;
    std::string padding_;
    std::vector<char*> all_;
};

/// Becomes the program. If that fails, says why, and returns the status to end with.
int run(const run_options& options);

}  // namespace xos::tool
