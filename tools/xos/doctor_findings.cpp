// What each fact means for a cell, and what to do about it.
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "tools/xos/doctor.hpp"

namespace xos::tool {

namespace {

using enum verdict_level;

constexpr std::size_t mib = std::size_t{1} << 20, gib = std::size_t{1} << 30;

std::string advice_for_absent_device(const features& f) {
    if (!f.kvm_modules.empty()) {
        return "The module is loaded, so this container or chroot lacks the device: pass it in, as "
               "with `docker run --device /dev/kvm`.";
    }
    switch (f.cpu.extension) {
        case virtualization::vmx:
            return "The processor has VMX: load its module (`modprobe kvm_intel`).";
        case virtualization::svm:
            return "The processor has SVM: load its module (`modprobe kvm_amd`).";
        default:
            break;
    }
    return "The processor shows neither VMX nor SVM: enable virtualization in the firmware or, in "
           "a "
           "virtual machine, nested virtualization in its host; then load kvm_intel or kvm_amd.";
}

std::string advice_for_refused_device() {
    if (geteuid() == 0) {
        return "Not even root may: the device lies on a file system mounted nodev, or the device "
               "cgroup, a security module or a user namespace forbids it.";
    }
    struct stat device {};
    if (stat("/dev/kvm", &device) == 0 && (device.st_mode & 060) != 060) {
        return fmt::format(
            "Its mode is {:04o}, so no group may open it: `chgrp kvm /dev/kvm && chmod 660 "
            "/dev/kvm`, add the user to that group and log in again.",
            device.st_mode & 07777u);
    }
    return "Add the user to the group that owns it (`usermod -aG kvm USER`) and log in again.";
}

finding device(const features& f) {
    const int error = f.kvm.open_error;
    const std::string_view subject = "/dev/kvm";
    auto failed = [&](std::string value, std::string advice) {
        return finding{fail, std::string(subject), std::move(value), std::move(advice)};
    };
    switch (error) {
        case 0:
            break;
        case ENOENT:
            return failed("does not exist", advice_for_absent_device(f));
        case EACCES:
        case EPERM:
            return failed("exists, but may not be opened", advice_for_refused_device());
        case ENODEV:
        case ENXIO:
            return failed("exists, but has no driver", "Load kvm_intel or kvm_amd.");
        case ENFILE:
            return failed("cannot be opened: this machine has no file descriptor left",
                          "Raise the limit (`sysctl fs.file-max`) or end what holds them.");
        case EMFILE:
            return failed("cannot be opened: this process has no file descriptor left",
                          "Raise RLIMIT_NOFILE (`ulimit -n`).");
        default:
            return failed(fmt::format("cannot be opened: {}", std::strerror(error)), "See dmesg.");
    }
    if (f.kvm.api_version_error) {
        return failed(
            fmt::format("is not KVM: asked for its version, it says \"{}\"",
                        std::strerror(f.kvm.api_version_error)),
            "Something else lies at that path; `ls -l /dev/kvm` should say \"10, 232\". In a "
            "container pass in the host's device.");
    }
    return {ok, std::string(subject), "opens for reading and writing", ""};
}

void judge_kvm(const features& f, std::vector<finding>& to) {
    to.push_back(device(f));
    if (!f.kvm.api_version) return;
    if (f.kvm.api_version == 12) {
        to.push_back({ok, "KVM API", "version 12", ""});
    } else {
        to.push_back({fail, "KVM API", fmt::format("version {}", f.kvm.api_version),
                      "libxos needs version 12, which every Linux since 2.6.22 has."});
    }
    for (const auto& c : f.kvm.missing) {
        const bool required = c.how_much == missing_capability::need::required;
        to.push_back({required ? fail : warn, "KVM capability", "no " + c.name,
                      "It is needed to " + c.needed_for + ": use a newer kernel."});
    }
    if (f.kvm.missing.empty()) to.push_back({ok, "KVM capabilities", "all that libxos uses", ""});
    if (f.kvm.max_vcpus) {
        to.push_back({ok, "KVM limits",
                      fmt::format("{} vCPUs, {} memory slots", f.kvm.max_vcpus, f.kvm.max_slots),
                      ""});
    }
    const char* pages = f.kvm.gigabyte_pages ? "1 GiB guest pages" : "no 1 GiB guest pages";
    if (f.kvm.physical_bits) {
        to.push_back({ok, "guest memory",
                      fmt::format("{} physical bits, {}", f.kvm.physical_bits, pages), ""});
    } else {
        to.push_back({warn, "guest memory",
                      fmt::format("physical bits not said (36 taken), {}", pages),
                      "Nothing to do while the cell needs less than 64 GiB."});
    }
}

finding kind(const features& f) {
    const std::string value = fmt::format("{} ({})", xos::name(f.kind), f.kind_reason);
    if (f.kind == virtualization::software) {
        return {warn, "virtualization", value,
                "Everything works, but exits and faults cost many times what they do on VMX or "
                "SVM: use "
                "this machine to develop and test, not to measure."};
    }
    if (f.kind == virtualization::none) {
        return {warn, "virtualization", value, "See the line on /dev/kvm."};
    }
    return {ok, "virtualization", value, ""};
}

finding paging(const features& f) {
    if (f.nested_paging == answer::yes) return {ok, "nested paging", "on", ""};
    if (f.kind == virtualization::software) {
        return {warn, "nested paging", "none: a software KVM shadows the guest's page tables",
                "It comes with VMX (EPT) or SVM (NPT)."};
    }
    if (f.nested_paging == answer::unknown) {
        return {warn, "nested paging", "unknown: no ept or npt parameter in /sys/module",
                "Without it every change of a guest page table costs an exit."};
    }
    return {
        warn, "nested paging", "off",
        f.kind == virtualization::svm ? "Load kvm_amd with npt=1." : "Load kvm_intel with ept=1."};
}

void judge_processor(const features& f, std::vector<finding>& to) {
    to.push_back(kind(f));
    if (f.kind != virtualization::none) to.push_back(paging(f));
    if (f.cpu.fsgsbase && f.cpu.xsave) {
        to.push_back({ok, "processor state", "FSGSBASE and XSAVE", ""});
        return;
    }
    if (!f.cpu.fsgsbase) {
        to.push_back(
            {fail, "processor state", "no FSGSBASE",
             "Use Linux 5.9 or newer on a processor of 2013 or later, without nofsgsbase."});
    }
    if (!f.cpu.xsave) {
        to.push_back({fail, "processor state", "no XSAVE", "Boot without noxsave."});
    }
}

finding limits() {
    rlimit files{}, space{}, data{};
    getrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_AS, &space);
    getrlimit(RLIMIT_DATA, &data);
    const bool few = files.rlim_cur < 256, small = space.rlim_cur < gib,
               little = data.rlim_cur < gib;
    std::string value = fmt::format("{} file descriptors, ", files.rlim_cur);
    value += space.rlim_cur == RLIM_INFINITY
                 ? "address space unlimited"
                 : fmt::format("{} MiB of address space", space.rlim_cur / mib);
    if (data.rlim_cur != RLIM_INFINITY)
        value += fmt::format(", {} MiB of data", data.rlim_cur / mib);
    std::string advice;
    if (few) advice = "Every thread in the cell takes a descriptor: raise `ulimit -n`. ";
    if (small) advice += "libxos reserves some 390 MiB by default: raise `ulimit -v`. ";
    if (little) advice += "libxos takes some 390 MiB of data by default: raise `ulimit -d`. ";
    if (!advice.empty()) advice.pop_back();
    return {few || small || little ? warn : ok, "process limits", value, advice};
}

finding pool(const features& f, std::size_t page_bytes, const char* subject) {
    std::string value;
    bool there = false;
    std::size_t all = 0;
    for (const auto& p : f.huge_pages) {
        if (p.page_bytes != page_bytes) continue;
        there = true;
        all += p.total;
        if (!p.total) continue;
        if (!value.empty()) value += ", ";
        value += fmt::format("{} of {} free", p.free, p.total);
        if (p.node >= 0) value += fmt::format(" on node {}", p.node);
    }
    if (!there)
        value = "not offered by this kernel (optional)";
    else if (!all)
        value = "empty (optional)";
    return {ok, subject, value, ""};
}

void judge_memory(const features& f, std::vector<finding>& to) {
    to.push_back(limits());
    to.push_back(pool(f, 2 * mib, "2 MiB page pool"));
    to.push_back(pool(f, gib, "1 GiB page pool"));
    const auto& thp = f.transparent_huge_pages;
    if (thp == "always" || thp == "madvise") {
        to.push_back({ok, "transparent huge", thp, ""});
    } else {
        to.push_back({warn, "transparent huge", thp.empty() ? "not built into this kernel" : thp,
                      "Frame arenas then use 4 KiB pages: `echo madvise "
                      ">/sys/kernel/mm/transparent_hugepage/enabled`."});
    }
    to.push_back({ok, "NUMA nodes", std::to_string(f.numa_nodes), ""});
}

finding ring(const features& f) {
    if (f.io_uring) return {ok, "io_uring", "usable", ""};
    const std::string value = fmt::format("refused: {}", std::strerror(f.io_uring_error));
    if (f.io_uring_error == ENOSYS) {
        return {
            warn, "io_uring", value,
            "The kernel was built without it, or a seccomp filter hides it; cells run without it."};
    }
    if (f.io_uring_error == EPERM && f.io_uring_disabled > 0) {
        return {warn, "io_uring",
                fmt::format("kernel.io_uring_disabled is {}", f.io_uring_disabled),
                "`sysctl kernel.io_uring_disabled=0` allows it; cells run without it."};
    }
    if (f.io_uring_error == EPERM) {
        return {warn, "io_uring", value,
                "A seccomp filter or security module forbids it, as containers do by default; "
                "cells run "
                "without it."};
    }
    return {warn, "io_uring", value, "Cells run without it."};
}

finding queue(const features& f) {
    if (f.io_queue.empty()) {
        return {warn, "io_queue", "cannot be made: " + f.io_queue_reason,
                "Programs that use xos::io_queue fail."};
    }
    if (f.io_queue_reason.empty()) return {ok, "io_queue", "by " + f.io_queue, ""};
    return {ok, "io_queue", fmt::format("by plain calls and poll ({})", f.io_queue_reason), ""};
}

std::string layout_in_words(const features::call_module::memory_layout& l) {
    if (l.error == EPERM) return "";
    if (l.error) return fmt::format("; asked for the layout of memory: {}", std::strerror(l.error));
    return fmt::format(
        "; {} MiB of fresh memory lie in {} extents, the largest of {} KiB on node {}",
        l.bytes / mib, l.extents, l.largest >> 10, l.node);
}

finding call_module(const features& f) {
    const auto& m = f.module;
    if (!f.xos_module) return {ok, "xos.ko", "absent (optional)", ""};
    if (m.open_error == EPERM) {
        return {warn, "xos.ko", "refuses: the kernel is locked down", "Cells run without it."};
    }
    if (m.open_error) {
        return {
            warn, "xos.ko", fmt::format("cannot be opened: {}", std::strerror(m.open_error)),
            "Install kmod/99-xos.rules and add the user to the group kvm; cells run without it."};
    }
    if (m.abi_version != m.abi_wanted) {
        return {warn, "xos.ko",
                fmt::format("speaks version {} of its interface, this libxos version {}",
                            m.abi_version, m.abi_wanted),
                "Build and load the module that came with this libxos (`make kmod`); cells run "
                "without it."};
    }
    return {ok, "xos.ko", "usable" + layout_in_words(m.layout), ""};
}

void judge_kernel(const features& f, std::vector<finding>& to) {
    to.push_back(ring(f));
    to.push_back(queue(f));
    if (f.cgroup2.empty()) {
        to.push_back(
            {warn, "cgroup v2", "not mounted",
             "Cells run without it; `mount -t cgroup2 none /sys/fs/cgroup` if they are to be "
             "confined."});
    } else {
        to.push_back({ok, "cgroup v2", "at " + f.cgroup2, ""});
    }
    to.push_back(call_module(f));
}

void judge_costs(const features& f, const cell_measurement& m, std::vector<finding>& to) {
    auto cost = [&](const char* what, double ns, std::string note = "") {
        to.push_back({ok, what, fmt::format("{:>9.{}f} ns{}", ns, ns < 100 ? 2 : 0, note), ""});
    };
    cost("ring-0 instruction", f.cell.ring0_nanoseconds,
         f.cell.ring0_nanoseconds > 0 ? "" : ": too short to time here");
    const auto& c = m.costs;
    cost("empty exit", c.empty_exit, " there and back");
    if (c.clocks_agree) {
        cost("entry", c.entry);
        cost("leave", c.leave);
    } else {
        to.push_back(
            {warn, "entry and leave", fmt::format("{:>9.0f} ns together", c.entry),
             "The time stamp counter differs inside and outside, and with it what programs in "
             "the cell take for the time."});
    }
    cost("getppid, forwarded", c.getppid, fmt::format(", {:.0f} ns outside", c.native_getppid));
    cost("getppid, one of 64", c.getppid_by_vector, ", forwarded at once");
}

void judge_cell(const features& f, const cell_measurement& m, std::vector<finding>& to) {
    if (!f.cell.can_start) {
        to.push_back({fail, "cell", "does not start: " + f.cell.failure, ""});
        return;
    }
    if (!m.complete) {
        to.push_back(
            {fail, "cell", m.failure,
             "If the lines above do not explain it, this is a bug of libxos or of this KVM: "
             "please report it with this output."});
        return;
    }
    to.push_back({ok, "cell", "enters, calls Linux and leaves", ""});
    to.push_back({ok, "mode auto", m.mode + ": " + m.mode_reason, ""});
    judge_costs(f, m, to);
}

}  // namespace

double ring0_nanoseconds(const features& machine, const cell_measurement& measured) {
    const double inside = measured.costs.ring0_instruction;
    return inside > 0 ? inside : machine.cell.ring0_nanoseconds;
}

std::vector<finding> judge(const features& machine, const cell_measurement& measured) {
    std::vector<finding> to;
    to.push_back({ok, "kernel", "Linux " + machine.kernel_release, ""});
    judge_kvm(machine, to);
    // Without a descriptor /proc and /sys could not be read either, and absence would mean nothing.
    if (machine.kvm.open_error == EMFILE || machine.kvm.open_error == ENFILE) {
        to.push_back(limits());
        judge_cell(machine, measured, to);
        return to;
    }
    judge_processor(machine, to);
    judge_memory(machine, to);
    judge_kernel(machine, to);
    judge_cell(machine, measured, to);
    return to;
}

}  // namespace xos::tool
