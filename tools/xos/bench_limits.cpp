// Limits of instructions and exits: whether they hold, and new ones.
#include <fmt/core.h>

#include <cmath>
#include <stdexcept>

#include "tools/xos/bench_results.hpp"

namespace xos::tool {

namespace {

/// As an object, whatever the file has.
json limit_of(const json& value) {
    return value.is_number() ? json{{"instructions", value}} : value;
}

/// What a limit leaves: single operations repeat exactly, whole programs within a percent.
double with_room(const json& row, const std::string& what, double value) {
    const bool program = row["suite"] == "app";
    if (what == "exits") return std::ceil((value + 0.1) * 100) / 100;
    const double most = value * (program ? 1.035 : 1.01);
    return program ? std::ceil(most / 100) * 100 : std::ceil(most);
}

struct kind {
    const char *limit, *figure;
};
constexpr kind kinds[] = {{"instructions", "xos"}, {"exits", "exits_per_op"}};

}  // namespace

limits read_limits(const std::string& path) {
    const auto all = json::parse(read_file(path), nullptr, false);
    if (!all.is_object()) throw std::runtime_error(path + " holds no JSON object");
    for (const auto& [name, value] : all.items()) {
        const std::string where = path + ": " + name;
        if (value.is_number()) continue;
        if (!value.is_object())
            throw std::runtime_error(where + " is neither a number nor an object");
        for (const auto& [key, most] : value.items()) {
            if (key == "reason" && most.is_string()) continue;
            if (key != "instructions" && key != "exits")
                throw std::runtime_error(where + " has " + key + ", which has no limit");
            if (!most.is_number()) throw std::runtime_error(where + ": " + key + " is no number");
        }
    }
    return {path, all};
}

std::string exceeded(const limits& l, const results& r) {
    std::string text;
    for (const auto& row : r.rows) {
        const std::string name = full_name(row);
        const auto found = l.by_name.find(name);
        if (found == l.by_name.end()) continue;
        if (row["state"] == "left_out")
            text += fmt::format("{} has a limit and was left out\n", name);
        if (!measured(row)) continue;
        const json limit = limit_of(*found);
        for (const auto& [what, where] : kinds) {
            const double value = row[where].get<double>();
            if (!limit.contains(what) || value <= limit[what].get<double>()) continue;
            text += fmt::format("{} takes {} {}, more than its limit of {}\n", name, figure(value),
                                what, figure(limit[what].get<double>()));
        }
    }
    return text;
}

std::string accept(limits& l, const results& r, const std::string& reason) {
    // Far below its limit, a row may lose much before anyone notices.
    constexpr double far_below = 0.95;
    std::string text;
    for (const auto& row : r.rows) {
        const auto found = l.by_name.find(full_name(row));
        if (found == l.by_name.end() || !measured(row)) continue;
        json limit = limit_of(*found);
        bool changed = false;
        for (const auto& [what, where] : kinds) {
            if (!limit.contains(what)) continue;
            const double value = row[where].get<double>(), old = limit[what].get<double>();
            const double wanted = with_room(row, what, value);
            if (value <= old && wanted >= old * far_below) continue;
            text += fmt::format("{}: {} {}, until now {}\n", full_name(row), figure(wanted), what,
                                figure(old));
            limit[what] = wanted;
            changed = true;
        }
        if (!changed) continue;
        limit["reason"] = reason;
        l.by_name[full_name(row)] = limit;
    }
    return text;
}

std::string to_text(const limits& l) {
    std::string text = "{";
    for (const auto& [name, value] : l.by_name.items()) {
        json whole = value;
        // As a person would write them.
        const auto plain = [](json& v) {
            if (v.is_number_float() && v.get<double>() == std::floor(v.get<double>()))
                v = static_cast<std::int64_t>(v.get<double>());
        };
        if (whole.is_object()) {
            for (auto& member : whole) plain(member);
        } else {
            plain(whole);
        }
        std::string line;
        if (whole.is_object()) {
            for (const auto& [key, member] : whole.items())
                line += fmt::format("{}\"{}\": {}", line.empty() ? "{" : ", ", key, member.dump());
            line += '}';
        } else {
            line = whole.dump();
        }
        text += fmt::format("{}\n {}: {}", text.size() == 1 ? "" : ",", json(name).dump(), line);
    }
    return text + "\n}\n";
}

}  // namespace xos::tool
