// Finds out who traces the calling thread.
#include <linux/fcntl.h>

#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/syscall/emulated.hpp"

namespace xos::syscall {

using base::as_long;
using base::raw_syscall;

namespace {

/// The lines of a file of /proc, one after the other; only the beginning of a long line.
class lines_of {
  public:
    explicit lines_of(const char* path)
        : fd_(raw_syscall(__NR_open, as_long(path), O_RDONLY | O_CLOEXEC)) {}
    ~lines_of() {
        if (fd_ >= 0) raw_syscall(__NR_close, fd_);
    }
    lines_of(const lines_of&) = delete;
    lines_of& operator=(const lines_of&) = delete;

    /// Null after the last line.
    const char* next() {
        for (unsigned n = 0;; at_++) {
            if (at_ == size_) {
                const long r =
                    fd_ < 0 ? 0 : raw_syscall(__NR_read, fd_, as_long(buffer_), sizeof buffer_);
                if (r <= 0) return nullptr;
                size_ = static_cast<unsigned>(r);
                at_ = 0;
            }
            if (buffer_[at_] == '\n') {
                at_++;
                line_[n] = '\0';
                return line_;
            }
            if (n + 1 < sizeof line_) line_[n++] = buffer_[at_];
        }
    }

  private:
    long fd_;
    unsigned at_ = 0, size_ = 0;
    char buffer_[2048], line_[256];
};

/// The thread that traces this one; 0: none, or one outside this PID namespace.
std::uint32_t tracer() {
    lines_of status("/proc/thread-self/status");
    while (const char* line = status.next()) {
        int id = 0;
        if (const char* value = base::after(line, "TracerPid:\t"))
            return base::parse_number(value, id) ? static_cast<std::uint32_t>(id) : 0;
    }
    return 0;
}

}  // namespace

bool is_traced_from_a_cell() {
    const std::uint32_t id = tracer();
    if (id == 0) return false;
    base::text<32> path;
    (path << "/proc/").dec(id) << "/maps";
    lines_of maps(path.terminated());
    while (const char* line = maps.next()) {
        for (; *line; line++) {
            if (base::after(line, "anon_inode:kvm-vcpu:")) return true;
        }
    }
    return false;
}

}  // namespace xos::syscall
