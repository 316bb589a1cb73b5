// The store: a file of pages, without a name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <xos/types.hpp>

namespace swizzle {

/// How a page comes out of the file and back.
enum class transfer {
    system_calls,  ///< pread(2) and pwrite(2)
    copies,        ///< from and to a mapping of the file, that is, Linux's page cache
};

class page_file {
  public:
    /// @throws std::system_error
    page_file(std::size_t pages, transfer how);
    page_file(const page_file&) = delete;
    page_file& operator=(const page_file&) = delete;
    ~page_file();

    std::size_t pages() const { return pages_; }
    // Both take a page's worth of memory that system calls can see, and throw std::system_error.
    void read(std::size_t page, void* to);
    void write(std::size_t page, const void* from);

  private:
    struct closer {
        void operator()(std::FILE* f) const { std::fclose(f); }
    };

    std::unique_ptr<std::FILE, closer> file_;
    std::size_t pages_;
    std::byte* mapped_ = nullptr;
};

}  // namespace swizzle
