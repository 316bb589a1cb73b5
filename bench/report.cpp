#include "bench/report.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "bench/headlines.hpp"

namespace xos::bench {

namespace {

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

/// Where rounds of a side differ by so much, or where the interval is so wide, the row says so.
constexpr double much_drift = 0.1, wide_interval = 0.1;

/// What makes the figures doubtful, or nothing.
std::string noise(const result& r, unit u) {
    if (u != unit::time) return {};
    std::string text;
    const auto add = [&](const std::string& why) {
        text += (text.empty() ? "noisy: " : ", ") + why;
    };
    if (const auto faster = ratio(r, u); faster && r.of_ratio && *faster > 0) {
        const double width = (r.of_ratio->high - r.of_ratio->low) / *faster;
        if (width > wide_interval)
            add(fmt::format("the ratio is known within {:.0f} % only", width * 100));
    }
    if (const double by = drift(r.xos_way.rounds); by > much_drift)
        add(fmt::format("later rounds differ from earlier ones by {:.0f} %", by * 100));
    if (const double by = r.linux_way ? drift(r.linux_way->rounds) : 0; by > much_drift)
        add(fmt::format("later rounds of Linux differ from earlier ones by {:.0f} %", by * 100));
    return text;
}

/// Of whole programs, which do not repeat exactly: by how much the rounds of each side differ.
std::string difference_of_rounds(const result& r) {
    if (r.what->only_in != unit::instructions || !r.linux_way) return {};
    const auto percent = [](const distribution& d) { return (d.maximum / d.minimum - 1) * 100; };
    // One round does not differ.
    if (percent(r.xos_way) == 0 && percent(*r.linux_way) == 0) return {};
    return fmt::format("rounds differ by {:.1f} %, Linux: {:.1f} %", percent(r.xos_way),
                       percent(*r.linux_way));
}

/// What the sides have found out, and then the rest; each after a mark.
std::string remarks(const result& r, unit u) {
    std::string all;
    const auto add = [&](const char* whose, const std::string& text) {
        if (!text.empty()) all += "; " + (whose + text);
    };
    add("", r.remark);
    add("Linux: ", r.linux_remark);
    add("", difference_of_rounds(r));
    add("", noise(r, u));
    return all;
}

}  // namespace

const char* symbol(unit u) {
    return u == unit::time ? "ns" : "instructions";
}

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
               r.exits, r.what->note, remarks(r, unit_), other_ways(r, unit_));
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

namespace {

nlohmann::ordered_json numbers(const std::vector<double>& values) {
    auto all = nlohmann::ordered_json::array();
    for (const double v : values) all.push_back(rounded(v));
    return all;
}

/// What every row has, in the order of the schema.
nlohmann::ordered_json empty_row(const benchmark& b, unit u) {
    nlohmann::ordered_json row{{"suite", b.suite}, {"name", b.name}, {"unit", symbol(u)}};
    for (const char* figure :
         {"linux", "xos", "ratio", "ci_low", "ci_high", "exits_per_op", "cpu_ratio"})
        row[figure] = nullptr;
    row["peers"] = nlohmann::ordered_json::object();
    row["note"] = "";
    row["what"] = b.note;
    if (const char* headline = headline_of(b)) row["headline"] = headline;
    row["state"] = "measured";
    return row;
}

}  // namespace

nlohmann::ordered_json to_json(const result& r, unit u) {
    auto row = empty_row(*r.what, u);
    row["xos"] = rounded(value_of(r.xos_way, u));
    if (r.linux_way) row["linux"] = rounded(value_of(*r.linux_way, u));
    if (const auto faster = ratio(r, u)) row["ratio"] = rounded(*faster);
    if (r.of_ratio && !row["ratio"].is_null()) {
        row["ci_low"] = rounded(r.of_ratio->low);
        row["ci_high"] = rounded(r.of_ratio->high);
    }
    row["exits_per_op"] = rounded(r.exits);
    // All that a counting machine does is counted: there the processor's time is the figure itself.
    if (u == unit::time && r.linux_way && r.xos_way.cpu > 0)
        row["cpu_ratio"] = rounded(r.linux_way->cpu / r.xos_way.cpu);
    auto samples = nlohmann::ordered_json::object();
    samples["linux"] = r.linux_way ? numbers(r.linux_way->rounds) : nlohmann::ordered_json::array();
    samples["xos"] = numbers(r.xos_way.rounds);
    for (const auto& [name, way] : r.others) {
        row["peers"][name] = rounded(value_of(way, u));
        samples["peers"][name] = numbers(way.rounds);
    }
    // Without the mark that joins them to the line for people.
    if (const auto text = remarks(r, u); !text.empty()) row["note"] = text.substr(2);
    row["noisy"] = !noise(r, u).empty();
    row["operations"] = {{"xos", r.xos_way.operations}};
    if (r.linux_way) row["operations"]["linux"] = r.linux_way->operations;
    row["samples"] = std::move(samples);
    return row;
}

nlohmann::ordered_json to_json(const benchmark& b, unit u, const std::string& state,
                               const std::string& why) {
    auto row = empty_row(b, u);
    row["note"] = why;
    row["state"] = state;
    return row;
}

}  // namespace xos::bench
