// The diagnosis, for people and for programs.
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/xos/doctor.hpp"

namespace xos::tool {

namespace {

using json = nlohmann::ordered_json;

constexpr std::size_t columns = 100, value_column = 26;

/// Breaks `text` between words so that lines end before `columns`, each but the first indented.
std::string wrapped(std::string_view text, std::size_t indent) {
    std::string out;
    std::size_t room = columns - indent;
    while (text.size() > room) {
        const auto space = text.rfind(' ', room);
        if (space == text.npos) break;
        out += text.substr(0, space);
        out += '\n' + std::string(indent, ' ');
        text.remove_prefix(space + 1);
    }
    return out += text;
}

std::string indented(std::string_view text) {
    std::string out;
    while (!text.empty()) {
        const auto end = std::min(text.find('\n'), text.size());
        out += fmt::format("      | {}\n", text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return out;
}

std::string conclusion(const diagnosis& d) {
    if (d.can_run) return fmt::format("A cell can run here, in mode {}.", d.measured.mode);
    for (const auto& f : d.findings) {
        if (f.level == verdict_level::fail) {
            return wrapped(
                fmt::format("No cell can run here. First cause: {} {}.", f.subject, f.value), 0);
        }
    }
    return "No cell can run here.";
}

const char* text_of(answer a) {
    return a == answer::yes ? "on" : a == answer::no ? "off" : "unknown";
}

json error_or_null(int error) {
    return error ? json(error) : json(nullptr);
}

json kvm_json(const features::kvm_device& k) {
    json missing = json::array();
    for (const auto& c : k.missing) {
        missing.push_back({{"name", c.name},
                           {"needed_to", c.needed_for},
                           {"required", c.how_much == missing_capability::need::required}});
    }
    return {{"present", k.present},
            {"open_error", error_or_null(k.open_error)},
            {"api_version", k.api_version},
            {"api_version_error", error_or_null(k.api_version_error)},
            {"missing_capabilities", missing},
            {"max_vcpus", k.max_vcpus},
            {"max_slots", k.max_slots},
            {"physical_bits", k.physical_bits},
            {"gigabyte_pages", k.gigabyte_pages}};
}

json module_json(const features& f) {
    if (!f.xos_module) return nullptr;
    const auto& m = f.module;
    json layout = nullptr;
    if (m.layout.bytes) {
        layout = {{"bytes", m.layout.bytes},
                  {"extents", m.layout.extents},
                  {"largest_bytes", m.layout.largest},
                  {"node", m.layout.node}};
    }
    return {{"open_error", error_or_null(m.open_error)},
            {"abi_version", m.abi_version},
            {"abi_wanted", m.abi_wanted},
            {"layout_error", error_or_null(m.layout.error)},
            {"layout", layout}};
}

json features_json(const features& f) {
    json pools = json::array();
    for (const auto& p : f.huge_pages) {
        pools.push_back({{"node", p.node < 0 ? json(nullptr) : json(p.node)},
                         {"page_bytes", p.page_bytes},
                         {"total", p.total},
                         {"free", p.free}});
    }
    return {{"kernel_release", f.kernel_release},
            {"kvm", kvm_json(f.kvm)},
            {"kvm_modules", f.kvm_modules},
            {"kind", xos::name(f.kind)},
            {"kind_reason", f.kind_reason},
            {"nested_paging", text_of(f.nested_paging)},
            {"cpu",
             {{"extension", xos::name(f.cpu.extension)},
              {"fsgsbase", f.cpu.fsgsbase},
              {"xsave", f.cpu.xsave}}},
            {"cell",
             {{"can_start", f.cell.can_start},
              {"error", error_or_null(f.cell.error)},
              {"failure", f.cell.failure},
              {"ring0_interpreted", f.cell.ring0_interpreted}}},
            {"huge_pages", pools},
            {"transparent_huge_pages", f.transparent_huge_pages},
            {"numa_nodes", f.numa_nodes},
            {"io_uring",
             {{"usable", f.io_uring},
              {"error", error_or_null(f.io_uring_error)},
              {"disabled", f.io_uring_disabled < 0 ? json(nullptr) : json(f.io_uring_disabled)}}},
            {"io_queue", {{"transport", f.io_queue}, {"reason", f.io_queue_reason}}},
            {"cgroup2", f.cgroup2},
            {"xos_module", f.xos_module},
            {"module", module_json(f)}};
}

json costs_json(const diagnosis& d) {
    if (!d.measured.complete) return nullptr;
    const auto& c = d.measured.costs;
    return {{"ring0_instruction", ring0_nanoseconds(d.machine, d.measured)},
            {"empty_exit", c.empty_exit},
            {"entry", c.clocks_agree ? json(c.entry) : json(nullptr)},
            {"leave", c.clocks_agree ? json(c.leave) : json(nullptr)},
            {"entry_and_leave", c.entry + c.leave},
            {"getppid", c.getppid},
            {"getppid_by_vector", c.getppid_by_vector},
            {"native_getppid", c.native_getppid}};
}

}  // namespace

const char* name(verdict_level level) {
    switch (level) {
        case verdict_level::ok:
            return "ok";
        case verdict_level::warn:
            return "warn";
        case verdict_level::fail:
            break;
    }
    return "fail";
}

std::string to_text(const diagnosis& d) {
    std::string out;
    for (const auto& f : d.findings) {
        out += fmt::format("{:<5} {:<19} {}\n", name(f.level), f.subject,
                           wrapped(f.value, value_column));
        if (!f.advice.empty()) out += fmt::format("      -> {}\n", wrapped(f.advice, 9));
    }
    if (!d.measured.output.empty()) {
        out += "      The cell wrote:\n" + indented(d.measured.output);
    }
    return out + conclusion(d) + "\n";
}

std::string to_json(const diagnosis& d) {
    json findings = json::array();
    for (const auto& f : d.findings) {
        findings.push_back({{"level", name(f.level)},
                            {"subject", f.subject},
                            {"value", f.value},
                            {"advice", f.advice}});
    }
    const json report = {
        {"version", XOS_VERSION},
        {"can_run", d.can_run},
        {"mode", d.can_run ? json(d.measured.mode) : json(nullptr)},
        {"mode_reason", d.can_run ? json(d.measured.mode_reason) : json(nullptr)},
        {"costs_ns", costs_json(d)},
        {"failure", d.machine.cell.can_start ? d.measured.failure : d.machine.cell.failure},
        {"cell_output", d.measured.output},
        {"findings", findings},
        {"features", features_json(d.machine)}};
    return report.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace xos::tool
