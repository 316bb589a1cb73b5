// The process's KVM descriptors, kept out of the way of the application's.
//
// They are moved to high numbers (an application expects the lowest free one), are close-on-exec,
// and are known, so that the application's calls pass them by.
#pragma once

#include <cstdint>

namespace xos::kvm {

class descriptor_set {
  public:
    static constexpr unsigned limit = 65536;

    /// While it lives, this process may open descriptors in the own range: the application may have
    /// lowered RLIMIT_NOFILE, but threads and children do not count as its files.
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
    /// The lowest own descriptor >= fd, or `limit`.
    unsigned next(std::uint64_t fd) const;

  private:
    unsigned first_ = 0;
    std::uint64_t words_[limit / 64] = {};
};

}  // namespace xos::kvm
