// Asks /dev/xos about itself, and about physical memory.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "kmod/xos_uapi.h"
#include "libxos/api/feature_probes.hpp"

namespace xos::api {

namespace {

constexpr std::size_t sample_bytes = std::size_t{16} << 20;

void add(features::call_module::memory_layout& to, const xos_extent& e) {
    to.extents++;
    to.bytes += e.bytes;
    if (e.bytes <= to.largest) return;
    to.largest = e.bytes;
    to.node = e.node;
}

features::call_module::memory_layout ask_layout(int device) {
    features::call_module::memory_layout result;
    void* memory =
        mmap(nullptr, sample_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        result.error = errno;
        return result;
    }
    madvise(memory, sample_bytes, MADV_HUGEPAGE);
    madvise(memory, sample_bytes, MADV_POPULATE_WRITE);
    std::vector<xos_extent> extents(sample_bytes / static_cast<std::size_t>(sysconf(_SC_PAGESIZE)));
    xos_layout l{};
    l.address = reinterpret_cast<std::uintptr_t>(memory);
    l.bytes = sample_bytes;
    l.extents = reinterpret_cast<std::uintptr_t>(extents.data());
    l.capacity = static_cast<std::uint32_t>(extents.size());
    if (ioctl(device, XOS_IOC_LAYOUT, &l) != 0) result.error = errno;
    for (unsigned i = 0; !result.error && i < l.count; i++) add(result, extents[i]);
    munmap(memory, sample_bytes);
    return result;
}

}  // namespace

features::call_module probe_module() {
    features::call_module m;
    m.abi_wanted = XOS_ABI_VERSION;
    const int device = open("/dev/xos", O_RDWR | O_CLOEXEC);
    if (device < 0) {
        m.open_error = errno;
        return m;
    }
    xos_info info{};
    if (ioctl(device, XOS_IOC_INFO, &info) == 0) m.abi_version = info.abi_version;
    if (m.abi_version == m.abi_wanted) m.layout = ask_layout(device);
    close(device);
    return m;
}

}  // namespace xos::api
