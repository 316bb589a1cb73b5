// What `xos bench` has found out: bench/results.schema.json describes it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace xos::tool {

using json = nlohmann::ordered_json;

struct results {
    json runs = json::array();  ///< facts of each run
    json rows = json::array();
};

/// A row a line.
std::string to_text(const results& r);

/// @throws std::runtime_error there is no such file, or it holds something else
results read_results(const std::string& path);

void append(results& to, results more);

std::string read_file(const std::string& path);  ///< @throws std::system_error

/// "suite/name".
std::string full_name(const json& row);
bool measured(const json& row);
/// Whether calls reached Linux by the kernel module.
bool by_module(const json& row);

/// With thousands separated, and as many digits as mean something.
std::string figure(double value);

// ---- What is made of them.

/// A page that needs no other file.
std::string html(const results& r);

/// A document; or, where `before` has blocks between markers, that with new blocks.
/// A block is a line <!-- xos bench: WHAT -->, a table, and a line <!-- end of xos bench -->. WHAT is
/// `headlines`, or a text that suite/name of its rows contain.
/// @throws std::runtime_error a block has no end
std::string markdown(const results& r, const std::string& before);

/// What differs, for people.
std::string compare(const results& before, const results& now);

// ---- The most that an operation may take.

/// A file of limits: by full name a number, which is one of instructions, or an object with
/// `instructions`, `exits` or both, and the `reason` why that was accepted.
struct limits {
    std::string path;
    json by_name = json::object();
};

/// @throws std::runtime_error the file holds something else
limits read_limits(const std::string& path);
/// Says by lines what exceeds its limit, or has one and was not measured; nothing when all holds.
std::string exceeded(const limits& l, const results& r);
/// Limits that follow what was measured, where that is above them or far below. Says by lines which.
std::string accept(limits& l, const results& r, const std::string& reason);
std::string to_text(const limits& l);

}  // namespace xos::tool
