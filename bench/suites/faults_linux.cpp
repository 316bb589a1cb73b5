#include "bench/suites/faults_linux.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>
#include <xos/types.hpp>

namespace xos::bench {

namespace {

int faults = -1;

/// Of user mode only (Linux 5.11), which needs no privilege.
int open_userfaultfd(std::uint64_t features) {
    const auto fd = static_cast<int>(syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY));
    if (fd < 0) return fd;
    uffdio_api api{};
    api.api = UFFD_API;
    api.features = UFFD_FEATURE_SIGBUS | features;
    if (ioctl(fd, UFFDIO_API, &api) == 0) return fd;
    close(fd);
    return -1;
}

bool has(std::uint64_t features) {
    const int fd = open_userfaultfd(features);
    if (fd >= 0) close(fd);
    return fd >= 0;
}

void watch(std::uint64_t begin, std::uint64_t bytes, std::uint64_t features, std::uint64_t mode,
           void (*action)(int, siginfo_t*, void*)) {
    faults = open_userfaultfd(features);
    uffdio_register range{};
    range.range = {begin, bytes};
    range.mode = mode;
    if (ioctl(faults, UFFDIO_REGISTER, &range) != 0)
        throw std::system_error(errno, std::system_category(), "userfaultfd");
    catch_signal(SIGBUS, action);
}

/// From a handler: what fails there would fault again for ever.
void ask(unsigned long request, void* argument) {
    if (ioctl(faults, request, argument) != 0) _exit(1);
}

std::uint64_t page_of(const siginfo_t* info) {
    return reinterpret_cast<std::uint64_t>(info->si_addr) & ~(page_size - 1);
}

/// UFFDIO_ZEROPAGE takes longer: it maps the zero page, and the write faults once more.
void fill_by_signal(int, siginfo_t* info, void*) {
    alignas(page_size) static const char zeros[page_size] = {};
    uffdio_copy copy{};
    copy.dst = page_of(info);
    copy.src = reinterpret_cast<std::uint64_t>(zeros);
    copy.len = page_size;
    copy.mode = UFFDIO_COPY_MODE_DONTWAKE;
    ask(UFFDIO_COPY, &copy);
}

void allow_writes_by_signal(int, siginfo_t* info, void*) {
    uffdio_writeprotect change{};
    change.range = {page_of(info), page_size};
    change.mode = UFFDIO_WRITEPROTECT_MODE_DONTWAKE;
    ask(UFFDIO_WRITEPROTECT, &change);
}

}  // namespace

struct sigaction catch_signal(int number, void (*action)(int, siginfo_t*, void*)) {
    struct sigaction wanted {
    }, previous;
    wanted.sa_sigaction = action;
    wanted.sa_flags = SA_SIGINFO;
    if (sigaction(number, &wanted, &previous) != 0)
        throw std::system_error(errno, std::system_category(), "sigaction");
    return previous;
}

bool has_missing_faults() {
    return has(0);
}
bool has_write_faults() {
    return has(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
}

void fill_when_touched(std::uint64_t begin, std::uint64_t bytes) {
    watch(begin, bytes, 0, UFFDIO_REGISTER_MODE_MISSING, fill_by_signal);
}
void unprotect_when_written(std::uint64_t begin, std::uint64_t bytes) {
    watch(begin, bytes, UFFD_FEATURE_PAGEFAULT_FLAG_WP, UFFDIO_REGISTER_MODE_WP,
          allow_writes_by_signal);
}

void write_protect(std::uint64_t begin, std::uint64_t bytes) {
    uffdio_writeprotect change{};
    change.range = {begin, bytes};
    change.mode = UFFDIO_WRITEPROTECT_MODE_WP;
    ask(UFFDIO_WRITEPROTECT, &change);
}

}  // namespace xos::bench
