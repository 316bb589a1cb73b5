// What a run tells: the table for people, JSON for programs, and whether limits hold.
#pragma once

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

using limits = std::map<std::string, double>;  ///< by full name: the most that libxos may take

/// @throws std::runtime_error when the file is no object of numbers, or names no benchmark.
limits read_limits(const std::string& path);

/// Says what exceeds its limit; returns how many do.
unsigned check_limits(const limits& l, const std::vector<result>& results, unit u);

}  // namespace xos::bench
