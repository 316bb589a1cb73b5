// A mapping of Linux's that goes with its object.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <system_error>

namespace swizzle {

class mapping {
  public:
    mapping(std::size_t bytes, int protection, int flags, int fd = -1) : bytes_(bytes) {
        void* at = ::mmap(nullptr, bytes, protection, flags, fd, 0);
        if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
        data_ = static_cast<std::byte*>(at);
    }
    mapping(const mapping&) = delete;
    mapping& operator=(const mapping&) = delete;
    ~mapping() { ::munmap(data_, bytes_); }

    std::byte* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }

  private:
    std::byte* data_;
    std::size_t bytes_;
};

}  // namespace swizzle
