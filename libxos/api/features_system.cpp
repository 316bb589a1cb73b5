// Asks Linux about the machine: /proc, /sys, and system calls that change nothing.
#include <linux/io_uring.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <system_error>
#include <xos/io_queue.hpp>
#include <xos/types.hpp>

#include "libxos/api/feature_probes.hpp"
#include "libxos/arch/cpu.hpp"

namespace xos::api {

namespace {

namespace fs = std::filesystem;

std::string first_line(const fs::path& path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

template <class Number>
Number number_in(const fs::path& path, Number otherwise) {
    const std::string line = first_line(path);
    Number n = otherwise;
    std::from_chars(line.data(), line.data() + line.size(), n);
    return n;
}

bool there_is(const fs::path& path) {
    std::error_code ignored;
    return fs::exists(path, ignored);
}

std::vector<fs::path> entries_of(const fs::path& folder) {
    std::vector<fs::path> found;
    std::error_code error;
    for (fs::directory_iterator at(folder, error), end; !error && at != end; at.increment(error)) {
        found.push_back(at->path());
    }
    std::ranges::sort(found);
    return found;
}

void probe_processor(features& f) {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with("flags")) continue;
        std::istringstream words(line);
        for (std::string word; words >> word;) {
            if (word == "vmx") f.cpu.extension = virtualization::vmx;
            if (word == "svm") f.cpu.extension = virtualization::svm;
        }
        break;
    }
    constexpr unsigned long hwcap2_fsgsbase = 1 << 1;  // <asm/hwcap2.h>
    f.cpu.fsgsbase = getauxval(AT_HWCAP2) & hwcap2_fsgsbase;
    f.cpu.xsave = arch::cpuid(1).ecx >> 27 & 1;
}

answer switch_in(const fs::path& parameter) {
    const std::string line = first_line(parameter);
    if (line.empty()) return answer::unknown;
    return line[0] == 'Y' || line[0] == '1' ? answer::yes : answer::no;
}

void probe_modules(features& f) {
    const fs::path modules = "/sys/module";
    for (const char* module : {"kvm_intel", "kvm_amd", "kvm_pvm"}) {
        if (there_is(modules / module)) f.kvm_modules.push_back(module);
    }
    const answer ept = switch_in(modules / "kvm_intel/parameters/ept");
    const answer npt = switch_in(modules / "kvm_amd/parameters/npt");
    f.nested_paging = f.cpu.extension == virtualization::svm ? npt : ept;
}

void add_pools(features& f, const fs::path& folder, int node) {
    for (std::size_t page_bytes : {large_page_size, huge_page_size}) {
        const fs::path pool = folder / ("hugepages-" + std::to_string(page_bytes / 1024) + "kB");
        if (!there_is(pool)) continue;
        f.huge_pages.push_back({node, page_bytes, number_in(pool / "nr_hugepages", std::size_t{0}),
                                number_in(pool / "free_hugepages", std::size_t{0})});
    }
}

/// Returns the word in brackets: "always [madvise] never".
std::string chosen_word(const std::string& line) {
    const auto open = line.find('['), close = line.find(']');
    if (open == line.npos || close == line.npos) return line;
    return line.substr(open + 1, close - open - 1);
}

void probe_memory(features& f) {
    unsigned nodes = 0;
    for (const auto& folder : entries_of("/sys/devices/system/node")) {
        const std::string name = folder.filename();
        int node = -1;
        if (!name.starts_with("node")) continue;
        std::from_chars(name.data() + 4, name.data() + name.size(), node);
        if (node < 0) continue;
        nodes++;
        add_pools(f, folder / "hugepages", node);
    }
    f.numa_nodes = std::max(nodes, 1u);
    if (f.huge_pages.empty()) add_pools(f, "/sys/kernel/mm/hugepages", -1);
    f.transparent_huge_pages =
        chosen_word(first_line("/sys/kernel/mm/transparent_hugepage/enabled"));
}

void probe_io_uring(features& f) {
    f.io_uring_disabled = number_in("/proc/sys/kernel/io_uring_disabled", -1);
    io_uring_params parameters{};
    const long fd = syscall(SYS_io_uring_setup, 1, &parameters);
    f.io_uring = fd >= 0;
    if (fd < 0)
        f.io_uring_error = errno;
    else
        close(static_cast<int>(fd));
    try {
        const io_queue queue;
        f.io_queue = name(queue.transport());
        f.io_queue_reason = queue.transport_reason();
    } catch (const std::system_error& e) {
        f.io_queue_reason = e.what();
    }
}

void probe_cgroup2(features& f) {
    std::ifstream mounts("/proc/self/mounts");
    for (std::string line; std::getline(mounts, line);) {
        std::istringstream words(line);
        std::string device, place, type;
        words >> device >> place >> type;
        if (type != "cgroup2") continue;
        f.cgroup2 = place;
        return;
    }
}

}  // namespace

void probe_system(features& f) {
    probe_processor(f);
    probe_modules(f);
    probe_memory(f);
    probe_io_uring(f);
    probe_cgroup2(f);
    if (utsname u; uname(&u) == 0) f.kernel_release = u.release;
    f.xos_module = there_is("/dev/xos");
}

}  // namespace xos::api
