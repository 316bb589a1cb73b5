#include "tools/xos/doctor.hpp"

#include <cstdio>
#include <memory>

#include "tools/xos/commands.hpp"

namespace xos::tool {

namespace {

enum class format : unsigned { text, json };

int doctor(format wanted) {
    const diagnosis d = diagnose();
    const std::string report = wanted == format::json ? to_json(d) : to_text(d);
    std::fputs(report.c_str(), stdout);
    return d.can_run ? status_ok : status_failed;
}

}  // namespace

diagnosis diagnose() {
    diagnosis d;
    d.machine = probe_features();
    if (d.machine.cell.can_start) d.measured = measure_cell();
    d.can_run = d.measured.complete;
    d.findings = judge(d.machine, d.measured);
    return d;
}

void add_doctor(CLI::App& app, command_result& result) {
    auto* command = app.add_subcommand("doctor", "Tell whether a cell can run here, and how well");
    auto wanted = std::make_shared<format>(format::text);
    command->add_flag_callback(
        "--json", [wanted] { *wanted = format::json; }, "Print one JSON object");
    command->footer("Ends with status 0 when a cell can run, with 1 when not.");
    command->callback([wanted, &result] { result.status = doctor(*wanted); });
}

}  // namespace xos::tool
