// Tables for people who read Markdown.
#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <string_view>
#include <vector>

#include "tools/xos/bench_results.hpp"

namespace xos::tool {

namespace {

constexpr std::string_view begin_marker = "<!-- xos bench: ", end_of_begin = " -->\n",
                           end_marker = "<!-- end of xos bench -->";

std::string short_name(const std::string& engine) {
    if (engine == "qemu-svm") return "SVM";
    if (engine == "bochs-vmx") return "VMX";
    return "measured";
}

std::string unit_mark(const json& row) {
    return row["unit"] == "instructions" ? "" : " ns";
}

/// A line of a table: what was measured on each engine.
struct line {
    std::string label;
    std::map<std::string, const json*> by_engine;
};

class lines {
  public:
    explicit lines(const results& r) : results_(r) {
        for (const auto& row : r.rows) {
            if (!measured(row)) continue;
            const std::string engine = row["engine"].get<std::string>();
            if (std::find(engines_.begin(), engines_.end(), engine) == engines_.end())
                engines_.push_back(engine);
        }
    }

    template <class Wanted, class Label>
    std::string table(Wanted&& wanted, Label&& label) const {
        std::string text = "| |";
        std::string rule = "|---|";
        for (const auto& engine : engines_) {
            text += fmt::format(" Linux, {0} | libxos, {0} |", short_name(engine));
            rule += "---|---|";
        }
        text += " exits |\n" + rule + "---|\n";
        for (const auto& [name, l] : chosen(wanted, label)) text += text_of(l);
        return text;
    }

  private:
    /// Where a row is measured by both ways, that by the module comes after the other one.
    template <class Wanted, class Label>
    std::vector<std::pair<std::string, line>> chosen(Wanted&& wanted, Label&& label) const {
        std::vector<std::pair<std::string, line>> all;
        for (const auto& row : results_.rows) {
            if (!wanted(row)) continue;
            const std::string name = full_name(row);
            const bool second = by_module(row) &&
                                row["name"].get<std::string>().find("module") == std::string::npos;
            // Rows that are left out have a place, too: other runs may measure them.
            if (second && !changed_by_module(row)) continue;
            const auto of = [&](const std::string& key) {
                return std::find_if(all.begin(), all.end(),
                                    [&](const auto& one) { return one.first == key; });
            };
            const std::string key = name + (second ? "+" : "");
            auto place = of(key);
            if (place == all.end()) {
                auto after = second ? of(name) : all.end();
                if (after != all.end()) ++after;
                place = all.insert(
                    after, {key, {label(row) + (second ? ", with the kernel module" : ""), {}}});
            }
            if (measured(row)) place->second.by_engine[row["engine"]] = &row;
        }
        std::erase_if(all, [](const auto& one) { return one.second.by_engine.empty(); });
        return all;
    }

    /// Whether the module changes the figure by more than anybody would overlook.
    bool changed_by_module(const json& row) const {
        return measured(row) &&
               std::any_of(results_.rows.begin(), results_.rows.end(), [&](const json& other) {
                   if (!measured(other) || by_module(other) || other["engine"] != row["engine"] ||
                       full_name(other) != full_name(row))
                       return false;
                   const double with = row["xos"].get<double>(),
                                without = other["xos"].get<double>();
                   return std::abs(with - without) > 0.01 * without;
               });
    }

    std::string text_of(const line& l) const {
        std::string text = "| " + l.label + " |";
        std::string exits = "–";
        for (const auto& engine : engines_) {
            const auto found = l.by_engine.find(engine);
            if (found == l.by_engine.end()) {
                text += " – | – |";
                continue;
            }
            const json& row = *found->second;
            const double ours = row["xos"].get<double>();
            std::string theirs = "–", mine = figure(ours) + unit_mark(row);
            if (row["linux"].is_number()) {
                const double linux_value = row["linux"].get<double>();
                theirs = figure(linux_value) + unit_mark(row);
                // Neither, where they differ by less than anybody would notice.
                std::string& smaller = linux_value < ours ? theirs : mine;
                if (std::abs(linux_value - ours) > 0.01 * std::min(linux_value, ours))
                    smaller = "**" + smaller + "**";
            }
            text += ' ' + theirs + " | " + mine + " |";
            const double number = row["exits_per_op"].get<double>();
            if (exits == "–") exits = number < 0.005 ? "0" : fmt::format("{:.3g}", number);
        }
        return text + ' ' + exits + " |\n";
    }

    const results& results_;
    std::vector<std::string> engines_;
};

std::string block(const results& r, const std::string& what) {
    const lines all(r);
    if (what == "headlines") {
        return all.table([](const json& row) { return row.contains("headline"); },
                         [](const json& row) { return row["headline"].get<std::string>(); });
    }
    return all.table(
        [&](const json& row) { return full_name(row).find(what) != std::string::npos; },
        [&](const json& row) {
            return '`' + (what.empty() ? full_name(row) : row["name"].get<std::string>()) + "`, " +
                   row["what"].get<std::string>();
        });
}

std::string document(const results& r) {
    std::string text = "# libxos beside Linux\n\n";
    for (const auto& run : r.runs) {
        text += fmt::format("* {}, mode {}: {}, commit {}", run["engine"].get<std::string>(),
                            run["mode"].get<std::string>(), run["date"].get<std::string>(),
                            run["commit"].get<std::string>());
        if (run.contains("machine"))
            text += fmt::format(", {}, Linux {}", run["machine"].value("processor", ""),
                                run["machine"].value("kernel", ""));
        text += '\n';
    }
    text +=
        "\nThe figures are instructions an operation unless they say `ns`. The smaller one is "
        "bold.\n\n" +
        block(r, "");
    std::string failures;
    for (const auto& row : r.rows) {
        if (row["state"] == "failed")
            failures +=
                fmt::format("* {}, {}: {}\n", full_name(row), row["engine"].get<std::string>(),
                            row["note"].get<std::string>());
    }
    if (!failures.empty()) text += "\nThese failed:\n\n" + failures;
    return text;
}

}  // namespace

std::string markdown(const results& r, const std::string& before) {
    std::string text;
    std::size_t done = 0;
    for (;;) {
        auto begin = before.find(begin_marker, done);
        // Others are only spoken of.
        while (begin != std::string::npos && begin > 0 && before[begin - 1] != '\n')
            begin = before.find(begin_marker, begin + 1);
        if (begin == std::string::npos) break;
        const auto name = begin + begin_marker.size();
        const auto end_of_line = before.find(end_of_begin, name);
        const auto end = before.find(end_marker, name);
        if (end_of_line == std::string::npos || end == std::string::npos || end < end_of_line)
            throw std::runtime_error("a block of xos bench in the Markdown has no end");
        const auto after = end_of_line + end_of_begin.size();
        text += before.substr(done, after - done) + '\n' +
                block(r, before.substr(name, end_of_line - name)) + '\n';
        done = end;
    }
    return done == 0 ? document(r) : text + before.substr(done);
}

}  // namespace xos::tool
