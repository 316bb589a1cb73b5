#include <linux/fcntl.h>
#include <linux/resource.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/kvm/descriptors.hpp"

namespace xos::kvm {

using base::as_long;
using base::raw_syscall;

namespace {

std::uint64_t atomic_or(std::uint64_t& word, std::uint64_t bits) {
    return __atomic_fetch_or(&word, bits, __ATOMIC_RELAXED);
}

}  // namespace

void descriptor_set::initialise() {
    struct {
        std::uint64_t soft, hard;
    } files{};
    raw_syscall(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, as_long(&files));
    // Room for a few thousand vCPUs below the limit, but never below what shells use (10 to 255).
    constexpr std::uint64_t shells = 256;
    std::uint64_t top = files.soft > shells ? files.soft : files.hard;
    if (top > limit) top = limit;
    std::uint64_t room = top / 4 < 4352 ? top / 4 : 4352;
    first_ = static_cast<unsigned>(top - room);
}

descriptor_set::room::room(const descriptor_set& set) {
    raw_syscall(__NR_prlimit64, 0, RLIMIT_NOFILE, 0, as_long(&before_));
    constexpr std::uint64_t spare = 64;
    if (before_.soft >= set.first_ + spare || before_.soft >= before_.hard) return;
    auto wanted = before_;
    wanted.soft = before_.hard < limit ? before_.hard : limit;
    raised_ = raw_syscall(__NR_prlimit64, 0, RLIMIT_NOFILE, as_long(&wanted), 0) == 0;
}

descriptor_set::room::~room() {
    if (raised_) raw_syscall(__NR_prlimit64, 0, RLIMIT_NOFILE, as_long(&before_), 0);
}

int descriptor_set::adopt(int fd) {
    if (fd < 0) return fd;
    if (static_cast<unsigned>(fd) >= first_ && static_cast<unsigned>(fd) < limit) {
        // All numbers below the own range are in use.
        raw_syscall(__NR_fcntl, fd, F_SETFD, FD_CLOEXEC);
        atomic_or(words_[fd / 64], std::uint64_t{1} << (fd % 64));
        return fd;
    }
    const room guard(*this);
    long high = raw_syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, first_);
    // The limit may have been lowered since; then the highest number that still works is used.
    for (unsigned from = first_ / 2; high < 0 && from > 0; from /= 2)
        high = raw_syscall(__NR_fcntl, fd, F_DUPFD_CLOEXEC, from);
    raw_syscall(__NR_close, fd);
    if (high < 0 || high >= limit) return static_cast<int>(high < 0 ? high : -24);
    atomic_or(words_[high / 64], std::uint64_t{1} << (high % 64));
    return static_cast<int>(high);
}

void descriptor_set::close(int fd) {
    if (fd < 0 || !owns(static_cast<unsigned>(fd))) return;
    __atomic_fetch_and(&words_[fd / 64], ~(std::uint64_t{1} << (fd % 64)), __ATOMIC_RELAXED);
    raw_syscall(__NR_close, fd);
}

void descriptor_set::close_all() {
    for (unsigned fd = next(0); fd < limit; fd = next(fd + 1)) close(static_cast<int>(fd));
}

unsigned descriptor_set::next(std::uint64_t fd) const {
    while (fd < limit) {
        std::uint64_t rest = words_[fd / 64] >> (fd % 64);
        if (rest) return static_cast<unsigned>(fd + static_cast<unsigned>(__builtin_ctzll(rest)));
        fd = (fd / 64 + 1) * 64;
    }
    return limit;
}

}  // namespace xos::kvm
