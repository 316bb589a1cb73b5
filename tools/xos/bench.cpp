// xos bench: the benchmarks, on this machine and on emulated ones.
#include <fmt/core.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bench/options.hpp"
#include "tools/xos/bench_engines.hpp"
#include "tools/xos/bench_results.hpp"
#include "tools/xos/commands.hpp"
#include "tools/xos/output_file.hpp"

namespace xos::tool {

namespace {

struct bench_options {
    std::string engine = "native", json, html, markdown, compare, limits_file, reason;
    words from;
    bench::options of_benchmarks;
    bench_words passed;
    words command_line;

    bool runs() const { return from.empty(); }
    /// Where one output is standard output, it has that for itself.
    bool uses_standard_output() const { return json == "-" || html == "-" || markdown == "-"; }
};

constexpr int status_interrupted = 130;

std::string now() {
    const std::time_t t = std::time(nullptr);
    std::tm utc;
    gmtime_r(&t, &utc);
    char text[32];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return text;
}

std::vector<const engine*> chosen_engines(const std::string& name) {
    std::vector<const engine*> chosen;
    for (const auto& e : all_engines()) {
        if (name == "all" || name == e.name) chosen.push_back(&e);
    }
    return chosen;
}

/// What runs, and how long is left. Only for a person who looks on.
class progress {
  public:
    progress() : wanted_(isatty(STDERR_FILENO)) {}

    void next(const std::string& engine, const json& what) {
        if (!wanted_) return;
        const auto number = what["number"].get<unsigned>(), of = what["of"].get<unsigned>();
        const auto now = std::chrono::steady_clock::now();
        if (number == 1) began_ = now;
        std::string left;
        if (number > 1) {
            const double passed = std::chrono::duration<double>(now - began_).count();
            const double seconds = passed / (number - 1) * (of - number + 1);
            left = seconds < 90 ? fmt::format(", about {:.0f} s left", seconds)
                                : fmt::format(", about {:.0f} min left", seconds / 60);
        }
        std::fprintf(stderr, "\r\033[K[%u/%u] %s %s%s", number, of, engine.c_str(),
                     what["next"].get<std::string>().c_str(), left.c_str());
        std::fflush(stderr);
    }
    void clear() const {
        if (wanted_) std::fputs("\r\033[K", stderr);
    }

  private:
    bool wanted_;
    std::chrono::steady_clock::time_point began_;
};

/// Of a run of one engine: each row says how it was measured, and the facts say when.
class collector {
  public:
    collector(results& all, const engine& e, const bench_options& o)
        : all_(all), engine_(e), options_(o), first_row_(all.rows.size()) {}

    void take(const json& object, progress& line) {
        if (object.contains("run")) {
            json run = object["run"];
            run["date"] = now();
            run["options"] = options_.command_line;
            all_.runs.push_back(std::move(run));
            has_run_ = true;
        } else if (object.contains("next")) {
            line.next(engine_.name, object);
        } else if (object.contains("row")) {
            all_.rows.push_back(object["row"]);
        }
    }

    void finish(bool interrupted) {
        if (!has_run_) return;
        json& run = all_.runs.back();
        // A cell of its own does not tell its mode, but takes the same as others.
        for (std::size_t i = first_row_; i < all_.rows.size(); i++) {
            for (const char* how : {"mode", "transport"}) {
                if (const auto found = all_.rows[i].find(how);
                    found != all_.rows[i].end() && *found != "auto")
                    run[how] = *found;
            }
        }
        for (std::size_t i = first_row_; i < all_.rows.size(); i++) {
            json& row = all_.rows[i];
            row["engine"] = engine_.name;
            for (const char* how : {"mode", "transport"}) {
                if (!row.contains(how) || row[how] == "auto") row[how] = run[how];
            }
        }
        run["interrupted"] = interrupted;
    }

  private:
    results& all_;
    const engine& engine_;
    const bench_options& options_;
    std::size_t first_row_;
    bool has_run_ = false;
};

/// @returns the status, of which the worst counts
int run_on(const engine& e, const bench_options& o, results& all) {
    FILE* const table = o.uses_standard_output() ? stderr : stdout;
    progress line;
    collector rows(all, e, o);
    int status = status_failed;
    try {
        status = run_engine(
            e, o.passed, [&](const json& object) { rows.take(object, line); },
            [&](const std::string& text) {
                line.clear();
                std::fputs(text.c_str(), table);
                std::fflush(table);
            });
    } catch (const std::exception& error) {
        line.clear();
        std::fprintf(stderr, "xos bench: %s: %s\n", e.name, error.what());
    }
    line.clear();
    rows.finish(status == status_interrupted);
    return status;
}

int show_lists(const std::vector<const engine*>& engines, const bench_options& o) {
    const char* what = o.of_benchmarks.only_list ? "--list" : "--programs";
    int status = status_ok;
    for (const auto* e : engines) {
        if (engines.size() > 1) std::printf("%s:\n", e->name);
        const auto [text, ended] = output_of(listing(*e, o.passed, what));
        std::fputs(text.c_str(), stdout);
        status = std::max(status, ended);
    }
    return status;
}

/// What is wrong with the words, and limits of what is not there, is told before anything runs.
int check(const std::vector<const engine*>& engines, const bench_options& o,
          const std::optional<limits>& bounds) {
    for (const auto* e : engines) {
        if (const int status = output_of(listing(*e, o.passed, "--list")).status) return status;
    }
    if (!bounds) return status_ok;
    std::set<std::string> suites;
    for (const auto& [name, limit] : bounds->by_name.items())
        suites.insert(name.substr(0, name.find('/')));
    bench_words of_limits;
    of_limits.everywhere.assign(suites.begin(), suites.end());
    of_limits.unit = "instructions";
    const auto [text, status] = output_of(listing(all_engines().front(), of_limits, "--list"));
    if (status) return status;
    for (const auto& [name, limit] : bounds->by_name.items()) {
        if (("\n" + text).find("\n" + name + ' ') == std::string::npos)
            throw std::runtime_error(bounds->path + " names " + name + ", which is no benchmark");
    }
    return status_ok;
}

/// @throws std::exception a report cannot be written. All others are then, and the figures are in a
///         file that the message names.
void write_reports(const results& all, output_file& json_file, output_file& html_file,
                   output_file& markdown_file, const std::string& markdown_before) {
    std::string failures;
    const auto attempt = [&](output_file& file, auto&& text) {
        if (!file) return;
        try {
            file.write(text());
        } catch (const std::exception& e) {
            failures += fmt::format("{}{}", failures.empty() ? "" : "; ", e.what());
        }
    };
    attempt(json_file, [&] { return to_text(all); });
    attempt(html_file, [&] { return html(all); });
    attempt(markdown_file, [&] { return markdown(all, markdown_before); });
    if (failures.empty()) return;
    const auto kept = std::filesystem::temp_directory_path() /
                      fmt::format("xos-bench-{}.json", static_cast<int>(getpid()));
    output_file rescue(kept);
    rescue.write(to_text(all));
    throw std::runtime_error(failures + "; the results are in " + kept.string() +
                             ", for xos bench --from");
}

/// Of a file that holds more than the tables.
std::string around_the_tables(const std::string& path) {
    std::error_code ignored;
    return std::filesystem::is_regular_file(path, ignored) ? read_file(path) : std::string();
}

int judge(const std::optional<limits>& bounds, const bench_options& o, const results& all,
          FILE* table) {
    if (!bounds) return status_ok;
    if (o.reason.empty()) {
        const std::string text = exceeded(*bounds, all);
        std::fputs(text.c_str(), table);
        return text.empty() ? status_ok : status_failed;
    }
    limits changed = *bounds;
    const std::string text = accept(changed, all, o.reason);
    if (text.empty()) {
        std::fprintf(table, "every limit of %s holds as it is\n", bounds->path.c_str());
        return status_ok;
    }
    output_file(bounds->path).write(to_text(changed));
    std::fputs(text.c_str(), table);
    return status_ok;
}

int bench(const bench_options& o) {
    // A file that is too large is an error like others.
    std::signal(SIGXFSZ, SIG_IGN);
    const auto engines = chosen_engines(o.engine);
    if (o.of_benchmarks.only_list || o.of_benchmarks.only_programs) return show_lists(engines, o);
    std::optional<limits> bounds;
    if (!o.limits_file.empty()) bounds = read_limits(o.limits_file);
    std::optional<results> before;
    if (!o.compare.empty()) before = read_results(o.compare);
    results all;
    for (const auto& file : o.from) append(all, read_results(file));
    if (const int status = o.runs() ? check(engines, o, bounds) : status_ok) return status;

    output_file json_file(o.json), html_file(o.html);
    const std::string markdown_before = around_the_tables(o.markdown);
    output_file markdown_file(o.markdown);
    int status = status_ok;
    if (o.runs()) {
        for (const auto* e : engines) {
            status = std::max(status, run_on(*e, o, all));
            if (status == status_interrupted) break;
        }
    }
    FILE* const table = o.uses_standard_output() ? stderr : stdout;
    if (before) std::fputs(compare(*before, all).c_str(), table);
    status = std::max(status, judge(bounds, o, all, table));
    if (o.runs() && all.runs.empty()) return status;
    write_reports(all, json_file, html_file, markdown_file, markdown_before);
    return status;
}

/// The options that were given, and that xos-bench has.
words passed_on(const CLI::App& command, const bench_options& o) {
    CLI::App theirs;
    bench::options ignored;
    bench::add_options(theirs, ignored);
    words all;
    for (const CLI::Option* option : command.get_options()) {
        if (option->count() == 0 || option->get_lnames().empty()) continue;
        const std::string& name = option->get_lnames().front();
        if (name == "unit" || name == "list" || name == "programs" ||
            !theirs.get_option_no_throw("--" + name))
            continue;
        if (option->get_items_expected_max() == 0) {
            all.push_back("--" + name);
        } else {
            for (const auto& value : option->results()) all.push_back("--" + name + '=' + value);
        }
    }
    all.insert(all.end(), o.of_benchmarks.suites.begin(), o.of_benchmarks.suites.end());
    return all;
}

/// What only goes together.
void check_together(const bench_options& o) {
    const bool counts =
        o.engine != "native" || !o.runs() || o.of_benchmarks.how.unit == bench::unit::instructions;
    if (!o.passed.module.empty() && o.engine == "native")
        throw CLI::ValidationError("--module", "only an emulated machine loads it: --engine");
    if (!o.limits_file.empty() && !counts)
        throw CLI::ValidationError("--limits", "needs an emulated engine: times do not repeat");
    if (!o.limits_file.empty() && o.engine == "all")
        throw CLI::ValidationError("--limits", "are those of one engine");
    if (!o.reason.empty() && o.limits_file.empty())
        throw CLI::ValidationError("--accept-limits", "needs the file: --limits");
    if (!o.reason.empty() && o.of_benchmarks.quick)
        throw CLI::ValidationError("--accept-limits", "needs all rounds, and not --quick");
}

std::string check_engine(const std::string& name) {
    words known{"all"};
    for (const auto& e : all_engines()) known.emplace_back(e.name);
    if (std::find(known.begin(), known.end(), name) != known.end()) return {};
    const std::string near = bench::nearest(name, known);
    return fmt::format("there is no engine {}{}; there are {}", name,
                       near.empty() ? "" : " (did you mean " + near + "?)", fmt::join(known, ", "));
}

}  // namespace

void add_bench(CLI::App& app, command_result& result) {
    auto o = std::make_shared<bench_options>();
    CLI::App* command = app.add_subcommand("bench", "Measure libxos beside Linux");
    command
        ->add_option("--engine", o->engine,
                     "native, or an emulated machine, where instructions are counted: qemu-svm or "
                     "bochs-vmx; or all, one after another")
        ->check(check_engine)
        ->capture_default_str();
    command->add_option("--module", o->passed.module,
                        "A kernel module for the emulated machine to load: xos.ko");
    bench::add_options(*command, o->of_benchmarks);
    command->add_option("--json", o->json, "Write all figures to this file; - for standard output");
    command->add_option("--html", o->html, "Write a report to look at to this file");
    command->add_option("--markdown", o->markdown,
                        "Write tables to this file; if it has blocks for them, only into those");
    command
        ->add_option("--from", o->from,
                     "Run nothing, and take the results that --json has written; any number")
        ->allow_extra_args(false);
    command->add_option("--compare", o->compare,
                        "Say what differs from these results, which --json has written");
    command->add_option("--limits", o->limits_file,
                        "JSON of the most instructions and exits that benchmarks may take; "
                        "exceeded, the status is 1");
    command->add_option(
        "--accept-limits", o->reason,
        "Write new limits to that file where they are exceeded, or far from what was "
        "measured, with this reason");
    command->allow_extras();
    command->callback([command, o, &result] {
        bench::refuse_unknown(*command);
        o->passed.has_mode = command->get_option("--mode")->count() != 0;
        if (const auto* unit = command->get_option("--unit"); unit->count())
            o->passed.unit = unit->results().front();
        o->passed.everywhere = passed_on(*command, *o);
        o->command_line = o->passed.everywhere;
        o->command_line.insert(o->command_line.begin(), "--engine=" + o->engine);
        if (!o->passed.module.empty())
            o->command_line.push_back("--module=" +
                                      std::filesystem::path(o->passed.module).filename().string());
        check_together(*o);
        result.status = bench(*o);
    });
}

}  // namespace xos::tool
