// What a run tells: the table for people, JSON for programs, and whether limits hold.
#pragma once

#include <limits>
#include <map>
#include <string>
#include <vector>

#include "bench/runner.hpp"

namespace xos::bench {

enum class detail { plain, verbose };

/// A line each, as soon as it is known: emulated machines are slow, and a benchmark may not come
/// back.
class table {
  public:
    table(const std::vector<const benchmark*>& rows, unit u, detail d);
    void header(const std::string& engine, const std::string& mode, unsigned rounds) const;
    void line(const result& r) const;
    void failure(const benchmark& b, const std::string& why) const;
    void left_out(const benchmark& b, const std::string& why) const;

  private:
    unit unit_;
    detail detail_;
    int name_width_;
};

struct description {
    std::string engine, mode;
    bench::unit unit;
};

std::string to_json(const description& d, const std::vector<result>& results);

/// Lines between which standard output carries JSON, for `--json -`: an emulated machine has no
/// other way to hand over a file.
inline constexpr const char* json_begin = "XOS-BENCH-JSON-BEGIN";
inline constexpr const char* json_end = "XOS-BENCH-JSON-END";

/// The most that libxos may take for an operation.
struct limit {
    double instructions = std::numeric_limits<double>::infinity();
    double exits = std::numeric_limits<double>::infinity();
};
using limits = std::map<std::string, limit>;  ///< by full name

/// A number in the file is one of instructions; an object has `instructions`, `exits` or both.
/// @throws std::runtime_error when the file holds something else, or names no benchmark.
limits read_limits(const std::string& path);

/// Says what exceeds its limit; returns how many do.
unsigned check_limits(const limits& l, const std::vector<result>& results);

}  // namespace xos::bench
