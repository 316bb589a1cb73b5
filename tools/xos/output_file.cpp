#include "tools/xos/output_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace xos::tool {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& name) {
    throw std::system_error(errno, std::generic_category(), "cannot write " + name);
}

}  // namespace

output_file::output_file(const std::string& name, std::size_t bytes) : name_(name) {
    if (name.empty()) return;
    if (name == "-") {
        descriptor_ = dup(STDOUT_FILENO);
        if (descriptor_ < 0) fail("standard output");
        return;
    }
    std::error_code ignored;
    path_ = fs::weakly_canonical(name, ignored);
    const bool in_place = fs::exists(path_, ignored) && !fs::is_regular_file(path_, ignored);
    if (in_place) {
        descriptor_ = open(path_.c_str(), O_WRONLY | O_CLOEXEC);
        if (descriptor_ < 0) fail(name);
        // A device that takes nothing says so to the first byte, and any text here may begin so.
        if (fs::is_character_file(path_, ignored) && ::write(descriptor_, "\n", 1) != 1) {
            const int why = errno;
            close(descriptor_);
            errno = why;
            fail(name);
        }
        return;
    }
    // A file that may not be written is not replaced, either.
    if (fs::exists(path_, ignored) && access(path_.c_str(), W_OK) != 0) fail(name);
    new_path_ = path_.string() + ".new";
    descriptor_ = open(new_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) fail(name);
    if (const int error = posix_fallocate(descriptor_, 0, static_cast<off_t>(bytes));
        error && error != EOPNOTSUPP) {
        unlink(new_path_.c_str());
        close(descriptor_);
        errno = error;
        fail(name);
    }
}

output_file::~output_file() {
    if (descriptor_ < 0) return;
    close(descriptor_);
    if (!new_path_.empty()) unlink(new_path_.c_str());
}

void output_file::write(const std::string& text) {
    for (std::size_t done = 0; done < text.size();) {
        const ssize_t n = ::write(descriptor_, text.data() + done, text.size() - done);
        if (n < 0 && errno != EINTR) fail(name_);
        if (n > 0) done += static_cast<std::size_t>(n);
    }
    if (new_path_.empty()) return;
    if (ftruncate(descriptor_, static_cast<off_t>(text.size())) != 0) fail(name_);
    if (fsync(descriptor_) != 0) fail(name_);
    if (rename(new_path_.c_str(), path_.c_str()) != 0) fail(name_);
    new_path_.clear();
}

}  // namespace xos::tool
