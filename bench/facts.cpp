#include "bench/facts.hpp"

#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "bench/commit.hpp"

namespace xos::bench {

namespace {

namespace fs = std::filesystem;

std::string first_line(const fs::path& file) {
    std::string line;
    std::ifstream stream(file);
    std::getline(stream, line);
    return line;
}

/// The value of the first line of /proc/cpuinfo with that key.
std::string of_processor(const std::string& key) {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.rfind(key, 0) != 0) continue;
        if (const auto colon = line.find(": "); colon != std::string::npos)
            return line.substr(colon + 2);
    }
    return {};
}

nlohmann::ordered_json mitigations() {
    std::map<std::string, std::string> all;
    std::error_code ignored;
    for (const auto& file :
         fs::directory_iterator("/sys/devices/system/cpu/vulnerabilities", ignored))
        all[file.path().filename()] = first_line(file.path());
    auto json = nlohmann::ordered_json::object();
    for (const auto& [name, state] : all) json[name] = state;
    return json;
}

}  // namespace

nlohmann::ordered_json facts_of_machine() {
    utsname kernel{};
    uname(&kernel);
    double load[1] = {0};
    getloadavg(load, 1);
    const auto memory = static_cast<double>(sysconf(_SC_PHYS_PAGES)) *
                        static_cast<double>(sysconf(_SC_PAGESIZE)) / (1 << 20);
    const std::string flags = ' ' + of_processor("flags") + ' ';
    return {{"processor", of_processor("model name")},
            {"processors", get_nprocs()},
            {"virtual", flags.find(" hypervisor ") != std::string::npos},
            {"memory_mib", std::round(memory)},
            {"kernel", std::string(kernel.release) + ' ' + kernel.version},
            {"governor", first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")},
            {"load", std::round(load[0] * 100) / 100},
            {"mitigations", mitigations()}};
}

nlohmann::ordered_json facts_of_program() {
    return {{"version", XOS_VERSION}, {"commit", XOS_COMMIT}};
}

}  // namespace xos::bench
