// A file that is written when all is known, and can be written then.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>

namespace xos::tool {

/// What is there under that name stays until there is all of the new one.
class output_file {
  public:
    /// Takes so many bytes of the disk at once, so that a full disk is known before there is anything to
    /// write. "-" is standard output, and "" none.
    /// @throws std::system_error it cannot be written
    explicit output_file(const std::string& name, std::size_t bytes = 4 << 20);
    ~output_file();
    output_file(const output_file&) = delete;
    output_file& operator=(const output_file&) = delete;

    /// @throws std::system_error
    void write(const std::string& text);
    explicit operator bool() const { return descriptor_ >= 0; }
    const std::string& name() const { return name_; }

  private:
    std::string name_;
    std::filesystem::path path_,
        new_path_;  ///< the second is empty when the file is written in place
    int descriptor_ = -1;
};

}  // namespace xos::tool
