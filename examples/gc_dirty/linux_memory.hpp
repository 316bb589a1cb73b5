// An anonymous mapping of Linux's.
#pragma once

#include <sys/mman.h>

#include <cerrno>
#include <cstddef>
#include <system_error>
#include <xos/types.hpp>

namespace gc_dirty {

class linux_memory {
  public:
    explicit linux_memory(std::size_t pages) : bytes_(pages * xos::page_size) {
        void* at =
            ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (at == MAP_FAILED) throw std::system_error(errno, std::generic_category(), "mmap");
        data_ = static_cast<std::byte*>(at);
        // Huge pages would count as one, as they would in a view.
        ::madvise(data_, bytes_, MADV_NOHUGEPAGE);
    }
    linux_memory(const linux_memory&) = delete;
    linux_memory& operator=(const linux_memory&) = delete;
    ~linux_memory() { ::munmap(data_, bytes_); }

    std::byte* data() const { return data_; }
    std::size_t bytes() const { return bytes_; }
    std::size_t pages() const { return bytes_ / xos::page_size; }

  private:
    std::byte* data_;
    std::size_t bytes_;
};

}  // namespace gc_dirty
