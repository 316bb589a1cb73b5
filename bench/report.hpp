// What a run tells: the table for people, and JSON for programs.
#pragma once

#include <nlohmann/json.hpp>
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

/// Standard output carries a line with this and a JSON object for `xos bench`, among those for people:
/// an emulated machine has no other way to hand over anything. The object has one of these members:
/// `run`, the facts, first of all; `next`, the row that is now measured, with its `number` and
/// `of`; `row`.
inline constexpr const char* machine_line = "XOS-BENCH ";

/// A row as bench/results.schema.json describes it, but for what `xos bench` adds.
nlohmann::ordered_json to_json(const result& r, unit u);
/// One without figures; `state` is "failed" or "left_out".
nlohmann::ordered_json to_json(const benchmark& b, unit u, const std::string& state,
                               const std::string& why);

const char* symbol(unit u);

}  // namespace xos::bench
