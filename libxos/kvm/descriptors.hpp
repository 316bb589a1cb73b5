// The process's KVM descriptors, kept apart from the application's.
//
// They have high numbers (an application expects the lowest free one) and are close-on-exec. libxos
// knows them, so that the application's calls skip them.
#pragma once

#include <cstdint>

namespace xos::kvm {

class descriptor_set {
  public:
    static constexpr unsigned limit = 65536;

    /// While it exists, this process may open descriptors in libxos's own range even if the
    /// application has lowered RLIMIT_NOFILE, which limits its files but not its threads and
    /// children.
    class room {
      public:
        explicit room(const descriptor_set& set);
        ~room();
        room(const room&) = delete;
        room& operator=(const room&) = delete;

      private:
        struct {
            std::uint64_t soft, hard;
        } before_{};
        bool raised_ = false;
    };

    /// Chooses where the own range starts, from RLIMIT_NOFILE.
    void initialise();
    /// Moves `fd` into the own range and returns the new number (or -errno, and `fd` is closed).
    int adopt(int fd);
    void close(int fd);
    void close_all();
    bool owns(std::uint64_t fd) const { return fd < limit && (words_[fd / 64] >> (fd % 64) & 1); }
    /// A bit for each descriptor below `limit`, set for own ones.
    const std::uint64_t* bits() const { return words_; }
    /// The lowest own descriptor >= fd, or `limit`.
    unsigned next(std::uint64_t fd) const;

  private:
    unsigned first_ = 0;
    std::uint64_t words_[limit / 64] = {};
};

}  // namespace xos::kvm
