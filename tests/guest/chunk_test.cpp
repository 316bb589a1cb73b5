// Host-managed memory that becomes visible to the guest in chunks.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <xos/stats.hpp>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

constexpr std::uint64_t page = 4096, chunk = std::uint64_t{64} << 20, gib = std::uint64_t{1} << 30;

}  // namespace

TEST_CASE("a reservation may be touched in steps over more memory than a cell keeps visible") {
    constexpr std::uint64_t length = 272 * gib, kept = 256 * gib, read_again = 24 * gib;
    const auto walk = [] {
        lines seen;
        void* const reserved =
            mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (reserved == MAP_FAILED) return lines{"no reservation"};
        auto* const base = static_cast<char*>(reserved);
        // mov eax, 42; ret
        constexpr unsigned char code[] = {0xb8, 42, 0, 0, 0, 0xc3};
        mprotect(base + page, page, PROT_READ | PROT_WRITE);
        std::memcpy(base + page, code, sizeof code);
        mprotect(base + page, page, PROT_READ | PROT_EXEC);
        const auto function = reinterpret_cast<int (*)()>(base + page);
        seen.push_back("code returns " + std::to_string(function()));
        unsigned wrong = 0;
        long fault_descriptor = -1;
        for (std::uint64_t at = 0; at < length; at += chunk) {
            // From then on no thread may wait for KVM.
            if (at == kept + 4 * gib) fault_descriptor = syscall(SYS_userfaultfd, O_CLOEXEC);
            if (mprotect(base + at, page, PROT_READ | PROT_WRITE) != 0) wrong++;
            std::memcpy(base + at, &at, sizeof at);
        }
        for (std::uint64_t at = 0; at < read_again; at += chunk) {
            std::uint64_t found = 0;
            std::memcpy(&found, base + at, sizeof found);
            if (found != at) wrong++;
        }
        seen.push_back(std::to_string(wrong) + " wrong pages");
        seen.push_back("code returns " + std::to_string(function()));
        munmap(base, length);
        seen.push_back(fault_descriptor < 0 ? "no userfaultfd" : "userfaultfd");
        close(static_cast<int>(fault_descriptor));
        return seen;
    };
    same(walk);
    std::uint64_t machine = 0;
    if (FILE* const info = std::fopen("/proc/meminfo", "r")) {
        unsigned long kib = 0;
        if (std::fscanf(info, "MemTotal: %lu", &kib) == 1) machine = kib * 1024;
        std::fclose(info);
    }
    REQUIRE(machine != 0);
    if (const std::uint64_t most = std::max(kept, 2 * machine); most < length)
        CHECK(stats().chunks <= most / chunk + 64);  // and what was visible at the start
}
