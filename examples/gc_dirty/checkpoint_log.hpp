// An append-only file of epochs, each with the pages that changed in it.
//
//     header: "GCEPOCH1", number of the epoch, number of pages
//     a page: its index, 4096 bytes          (repeated)
//     trailer: checksum of header and pages
//
// Replaying all epochs in order gives the memory at the end of the last one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <vector>

#include "tracked_memory.hpp"

namespace gc_dirty {

class checkpoint_log {
  public:
    /// A new file that has no name and goes with this object.
    /// @throws std::system_error
    checkpoint_log();

    /// @throws std::system_error when not everything could be written.
    void append(const page_set& changed, const std::byte* memory);

    /// Applies every epoch to `memory`.
    /// @return how many there were
    /// @throws std::runtime_error that says what is wrong with the file.
    std::uint64_t replay(std::span<std::byte> memory) const;

    int descriptor() const { return fileno(file_.get()); }

  private:
    struct closer {
        void operator()(std::FILE* f) const { std::fclose(f); }
    };

    void put(const void* from, std::size_t bytes);
    void flush();

    std::unique_ptr<std::FILE, closer> file_;
    std::uint64_t epochs_ = 0;
    std::vector<std::byte> buffer_;  ///< of what is not yet written
    std::uint64_t checksum_ = 0;
};

}  // namespace gc_dirty
