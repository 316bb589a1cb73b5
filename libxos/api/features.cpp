#include <algorithm>
#include <cstdio>
#include <xos/features.hpp>

#include "libxos/api/feature_probes.hpp"

namespace xos {

namespace {

bool has_module(const features& f, const char* module) {
    return std::ranges::find(f.kvm_modules, module) != f.kvm_modules.end();
}

virtualization kind_by_module(const features& f) {
    if (has_module(f, "kvm_pvm")) return virtualization::software;
    // Both modules can be loaded, but only the one for this processor works.
    if (f.cpu.extension != virtualization::none) return f.cpu.extension;
    if (has_module(f, "kvm_intel")) return virtualization::vmx;
    if (has_module(f, "kvm_amd")) return virtualization::svm;
    return virtualization::none;
}

// A module's name is a hint; the measured cost of ring 0 decides.
void determine_kind(features& f) {
    std::string modules;
    for (const auto& module : f.kvm_modules) modules += (modules.empty() ? "" : ", ") + module;
    if (!modules.empty()) modules += " loaded";
    if (f.kvm.open_error || !f.kvm.api_version) {
        f.kind_reason = "/dev/kvm does not answer";
        if (!modules.empty()) f.kind_reason += ", with " + modules;
        return;
    }
    f.kind = kind_by_module(f);
    f.kind_reason = modules.empty() ? "no known KVM module in /sys/module" : modules;
    if (!f.cell.can_start) {
        f.kind_reason += "; ring 0 could not be tried";
        return;
    }
    if (f.cell.ring0_interpreted)
        f.kind = virtualization::software;
    else if (f.kind == virtualization::software)
        f.kind = f.cpu.extension;
    if (!f.cell.ring0_interpreted) {
        f.kind_reason += "; ring 0 runs natively";
        return;
    }
    char text[96];
    std::snprintf(text, sizeof text, "; ring 0 is interpreted, %.0f ns an instruction",
                  f.cell.ring0_nanoseconds);
    f.kind_reason += text;
}

}  // namespace

const char* name(virtualization v) noexcept {
    switch (v) {
        case virtualization::vmx:
            return "vmx";
        case virtualization::svm:
            return "svm";
        case virtualization::software:
            return "software";
        case virtualization::none:
            break;
    }
    return "none";
}

features probe_features() {
    features f;
    f.kvm = api::probe_kvm_device();
    api::probe_system(f);
    if (f.xos_module) f.module = api::probe_module();
    f.cell = api::try_cell();
    determine_kind(f);
    // A software KVM shadows the guest's page tables, whatever a parameter of another module says.
    if (f.kind == virtualization::software) f.nested_paging = answer::no;
    return f;
}

}  // namespace xos
