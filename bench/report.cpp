#include "bench/report.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace xos::bench {

namespace {

const char* symbol(unit u) {
    return u == unit::time ? "ns" : "instructions";
}

/// Four digits that mean something.
std::string number(double v) {
    const int decimals = v >= 1000 ? 0 : v >= 100 ? 1 : 2;
    return fmt::format("{:.{}f}", v, decimals);
}

double rounded(double v) {
    return std::round(v * 1000) / 1000;
}

std::optional<double> ratio(const distribution& linux_way, const result& r, unit u) {
    const double ours = value_of(r.xos_way, u);
    return ours > 0 ? std::optional(value_of(linux_way, u) / ours) : std::nullopt;
}
std::optional<double> ratio(const result& r, unit u) {
    return r.linux_way ? ratio(*r.linux_way, r, u) : std::nullopt;
}

/// "; other ways: a 12.0 (1.05), b 9.00 (0.79)"
std::string other_ways(const result& r, unit u) {
    std::string text;
    for (const auto& [name, way] : r.others) {
        text += fmt::format("{}{} {} ({:.2f})", text.empty() ? "; other ways: " : ", ", name,
                            number(value_of(way, u)), ratio(way, r, u).value_or(0));
    }
    return text;
}

std::string spread(const distribution& d) {
    return fmt::format("min {} median {} mad {} x{}", number(d.minimum), number(d.median),
                       number(d.deviation), d.operations);
}

/// Of whole programs, which do not repeat exactly: by how much the rounds of each side differ.
std::string difference_of_rounds(const result& r) {
    if (r.what->only_in != unit::instructions || !r.linux_way) return {};
    const auto percent = [](const distribution& d) { return (d.maximum / d.minimum - 1) * 100; };
    // One round does not differ.
    if (percent(r.xos_way) == 0 && percent(*r.linux_way) == 0) return {};
    return fmt::format("; rounds differ by {:.1f} %, Linux: {:.1f} %", percent(r.xos_way),
                       percent(*r.linux_way));
}

/// What the sides have found out, and then the rest.
std::string remarks(const result& r) {
    return (r.remark.empty() ? "" : "; " + r.remark) +
           (r.linux_remark.empty() ? "" : "; Linux: " + r.linux_remark) + difference_of_rounds(r);
}

std::string now() {
    const std::time_t t = std::time(nullptr);
    std::tm utc;
    gmtime_r(&t, &utc);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return text;
}

}  // namespace

table::table(const std::vector<const benchmark*>& rows, unit u, detail d)
    : unit_(u), detail_(d), name_width_(10) {
    for (const auto* b : rows)
        name_width_ = std::max(name_width_, static_cast<int>(full_name(*b).size()));
}

void table::header(const std::string& engine, const std::string& mode, unsigned rounds) const {
    const char* what = unit_ == unit::time ? "nanoseconds an operation: median"
                                           : "instructions an operation: minimum (they repeat)";
    fmt::print("{}, {}; {} of {} rounds; ratio = linux/xos, above 1 libxos is faster\n", engine,
               mode, what, rounds);
    fmt::print("{:<{}} {:>12} {:>12} {:>8} {:>9}  {}\n", "benchmark", name_width_, "linux", "xos",
               "ratio", "exits/op", "note");
    std::fflush(stdout);
}

void table::line(const result& r) const {
    const auto faster = ratio(r, unit_);
    fmt::print("{:<{}} {:>12} {:>12} {:>8} {:>9.2f}  {}{}{}\n", full_name(*r.what), name_width_,
               r.linux_way ? number(value_of(*r.linux_way, unit_)) : "-",
               number(value_of(r.xos_way, unit_)), faster ? fmt::format("{:.2f}", *faster) : "-",
               r.exits, r.what->note, remarks(r), other_ways(r, unit_));
    if (detail_ == detail::verbose) {
        if (r.linux_way) fmt::print("{:<{}}   linux: {}\n", "", name_width_, spread(*r.linux_way));
        for (const auto& [name, way] : r.others)
            fmt::print("{:<{}}   {}: {}\n", "", name_width_, name, spread(way));
        fmt::print("{:<{}}   xos:   {}\n", "", name_width_, spread(r.xos_way));
    }
    std::fflush(stdout);
}

void table::failure(const benchmark& b, const std::string& why) const {
    fmt::print("{:<{}} FAILED: {}\n", full_name(b), name_width_, why);
    std::fflush(stdout);
}

void table::left_out(const benchmark& b, const std::string& why) const {
    fmt::print("{:<{}} left out: {}\n", full_name(b), name_width_, why);
    std::fflush(stdout);
}

std::string to_json(const description& d, const std::vector<result>& results) {
    auto rows = nlohmann::ordered_json::array();
    for (const auto& r : results) {
        nlohmann::ordered_json row{
            {"suite", r.what->suite}, {"name", r.what->name}, {"unit", symbol(d.unit)}};
        row["linux"] = nullptr;
        if (r.linux_way) row["linux"] = rounded(value_of(*r.linux_way, d.unit));
        row["xos"] = rounded(value_of(r.xos_way, d.unit));
        row["ratio"] = nullptr;
        if (const auto faster = ratio(r, d.unit)) row["ratio"] = rounded(*faster);
        for (const auto& [name, way] : r.others)
            row["other_ways"][name] = rounded(value_of(way, d.unit));
        row["exits_per_op"] = rounded(r.exits);
        if (!r.remark.empty()) row["note"] = r.remark;
        if (!r.linux_remark.empty()) row["linux_note"] = r.linux_remark;
        rows.push_back(std::move(row));
    }
    const nlohmann::ordered_json all{
        {"engine", d.engine}, {"mode", d.mode}, {"date", now()}, {"rows", std::move(rows)}};
    return all.dump(1);
}

namespace {

limit read_limit(const nlohmann::json& json, const std::string& where) {
    if (json.is_number()) return {.instructions = json.get<double>()};
    if (!json.is_object()) throw std::runtime_error(where + " is neither a number nor an object");
    limit l;
    for (const auto& [key, value] : json.items()) {
        double* const member = key == "instructions" ? &l.instructions
                               : key == "exits"      ? &l.exits
                                                     : nullptr;
        if (!member) throw std::runtime_error(where + " has " + key + ", which has no limit");
        if (!value.is_number()) throw std::runtime_error(where + ": " + key + " is no number");
        *member = value.get<double>();
    }
    return l;
}

}  // namespace

limits read_limits(const std::string& path) {
    std::ifstream file(path);
    const auto json = nlohmann::json::parse(file, nullptr, false);
    if (!json.is_object()) throw std::runtime_error(path + " holds no JSON object");
    limits l;
    for (const auto& [name, value] : json.items()) {
        const auto& all = all_benchmarks();
        if (std::none_of(all.begin(), all.end(),
                         [&](const auto& b) { return full_name(b) == name; })) {
            throw std::runtime_error(path + " names " + name + ", which is no benchmark");
        }
        l[name] = read_limit(value, path + ": " + name);
    }
    return l;
}

unsigned check_limits(const limits& l, const std::vector<result>& results) {
    unsigned exceeded = 0;
    const auto check = [&](const result& r, double value, double most, const char* what) {
        if (value <= most) return;
        exceeded++;
        fmt::print("{} takes {} {}, more than its limit of {}\n", full_name(*r.what), number(value),
                   what, number(most));
    };
    for (const auto& r : results) {
        const auto limit = l.find(full_name(*r.what));
        if (limit == l.end()) continue;
        check(r, value_of(r.xos_way, unit::instructions), limit->second.instructions,
              symbol(unit::instructions));
        check(r, r.exits, limit->second.exits, "exits");
    }
    return exceeded;
}

}  // namespace xos::bench
