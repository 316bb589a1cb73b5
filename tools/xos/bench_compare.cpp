// Two results beside each other.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "tools/xos/bench_results.hpp"

namespace xos::tool {

namespace {

std::string identity(const json& row) {
    return fmt::format("{} {} {}{}", full_name(row), row["engine"].get<std::string>(),
                       row["mode"].get<std::string>(), by_module(row) ? " module" : "");
}

/// Counts repeat; of times only intervals apart mean something.
std::string verdict(const json& before, const json& now) {
    if (now["unit"] != before["unit"]) return "another unit";
    const double old = before["xos"].get<double>(), value = now["xos"].get<double>();
    if (now["unit"] == "instructions") {
        // Whole programs repeat within a percent.
        const double same = now["suite"] == "app" ? 0.02 : 0.005;
        if (old <= 0 || std::abs(value / old - 1) <= same) return "the same";
        return value < old ? "fewer" : "MORE";
    }
    if (now["ci_low"].is_null() || before["ci_low"].is_null()) return "no Linux side to compare by";
    if (now["ci_low"] > before["ci_high"]) return "better";
    if (now["ci_high"] < before["ci_low"]) return "WORSE";
    return "the same, as far as the intervals tell";
}

std::string ratio_of(const json& row) {
    return row["ratio"].is_null() ? "-" : fmt::format("{:.2f}", row["ratio"].get<double>());
}

}  // namespace

std::string compare(const results& before, const results& now) {
    std::map<std::string, const json*> old;
    for (const auto& row : before.rows) {
        if (measured(row)) old[identity(row)] = &row;
    }
    std::size_t width = 10;
    for (const auto& row : now.rows) width = std::max(width, identity(row).size());
    std::string text =
        fmt::format("{:<{}} {:>12} {:>12} {:>8} {:>8} {:>8}  {}\n", "xos, before and now", width,
                    "before", "now", "change", "ratio", "now", "verdict");
    for (const auto& row : now.rows) {
        const auto found = old.find(identity(row));
        if (found == old.end()) {
            if (measured(row)) text += fmt::format("{:<{}} is new\n", identity(row), width);
            continue;
        }
        const json& was = *found->second;
        old.erase(found);
        if (!measured(row)) {
            text += fmt::format("{:<{}} {}: {}\n", identity(row), width,
                                row["state"] == "failed" ? "FAILED" : "left out",
                                row["note"].get<std::string>());
            continue;
        }
        const double a = was["xos"].get<double>(), b = row["xos"].get<double>();
        text += fmt::format("{:<{}} {:>12} {:>12} {:>8} {:>8} {:>8}  {}\n", identity(row), width,
                            figure(a), figure(b),
                            a > 0 ? fmt::format("{:+.1f} %", (b / a - 1) * 100) : "-",
                            ratio_of(was), ratio_of(row), verdict(was, row));
    }
    for (const auto& [name, row] : old) text += fmt::format("{:<{}} is not here\n", name, width);
    return text;
}

}  // namespace xos::tool
