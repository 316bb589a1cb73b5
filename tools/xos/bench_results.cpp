#include "tools/xos/bench_results.hpp"

#include <fmt/core.h>

#include <cerrno>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <system_error>

namespace xos::tool {

namespace {

constexpr const char* format = "xos-bench/1";

/// An array with an element a line.
std::string lines(const json& array) {
    std::string text = "[";
    for (const auto& element : array)
        text += (text.size() == 1 ? "\n  " : ",\n  ") + element.dump();
    return text + "\n ]";
}

}  // namespace

std::string to_text(const results& r) {
    return fmt::format("{{\n \"format\": \"{}\",\n \"runs\": {},\n \"rows\": {}\n}}\n", format,
                       lines(r.runs), lines(r.rows));
}

std::string read_file(const std::string& path) {
    std::ifstream file(path);
    std::ostringstream text;
    if (!file || !(text << file.rdbuf()))
        throw std::system_error(errno, std::generic_category(), "cannot read " + path);
    return text.str();
}

results read_results(const std::string& path) {
    const auto all = json::parse(read_file(path), nullptr, false);
    const auto strings = [](const json& object, std::initializer_list<const char*> keys) {
        for (const char* key : keys) {
            if (!object.is_object() || !object.contains(key) || !object[key].is_string())
                return false;
        }
        return true;
    };
    const auto refuse = [&](const char* why) {
        throw std::runtime_error(path + " holds no results of xos bench: " + why);
    };
    if (!all.is_object()) refuse("it is no JSON object");
    if (!strings(all, {"format"}) || all["format"] != format)
        refuse("its format is not xos-bench/1");
    for (const char* key : {"runs", "rows"}) {
        if (!all.contains(key) || !all[key].is_array()) refuse("it lacks runs or rows");
    }
    for (const auto& run : all["runs"]) {
        if (!strings(run, {"engine", "mode", "date", "commit"})) refuse("a run lacks its facts");
    }
    for (const auto& row : all["rows"]) {
        if (!strings(row, {"suite", "name", "unit", "engine", "mode", "transport", "state", "note",
                           "what"}))
            refuse("a row lacks what tells it from others");
        for (const char* key : {"linux", "xos", "ratio", "ci_low", "ci_high", "exits_per_op"}) {
            if (!row.contains(key) || !(row[key].is_number() || row[key].is_null()))
                refuse("a row lacks a figure");
        }
        if (measured(row) && !(row["xos"].is_number() && row["exits_per_op"].is_number()))
            refuse("a measured row lacks its figures");
    }
    return {all["runs"], all["rows"]};
}

void append(results& to, results more) {
    for (auto& run : more.runs) to.runs.push_back(std::move(run));
    for (auto& row : more.rows) to.rows.push_back(std::move(row));
}

std::string full_name(const json& row) {
    return row["suite"].get<std::string>() + '/' + row["name"].get<std::string>();
}

bool measured(const json& row) {
    return row["state"] == "measured";
}

bool by_module(const json& row) {
    return row["transport"] == "module";
}

std::string figure(double value) {
    std::string digits = fmt::format("{:.{}f}", value, value >= 100 ? 0 : value >= 10 ? 1 : 2);
    std::size_t point = digits.find('.');
    if (point == std::string::npos) point = digits.size();
    for (std::size_t i = point; i > 3 && i - 3 > 0; i -= 3) digits.insert(i - 3, 1, ',');
    return digits;
}

}  // namespace xos::tool
