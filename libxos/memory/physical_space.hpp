// Hands out guest-physical addresses compactly, from 4 GiB upwards, whatever the host addresses
// are. The offset within 2 MiB stays the same, so that large pages are possible.
#pragma once

#include <xos/types.hpp>

namespace xos::memory {

class physical_space {
  public:
    static constexpr std::uint64_t first = std::uint64_t{4} << 30;

    /// `bits`: the physical-address width of the vCPUs, 36 to 52.
    explicit constexpr physical_space(unsigned bits) : end_(std::uint64_t{1} << bits) {}

    /// Returns a range for `length` bytes at `like`, with the same offset within `alignment`.
    /// gpa{0} when the width is used up; then nothing changes.
    constexpr gpa allocate(hva like, std::uint64_t length,
                           std::uint64_t alignment = large_page_size) {
        const std::uint64_t offset = like.value & (alignment - 1);
        const std::uint64_t start = gpa{next_}.align_up(alignment).value + offset;
        if (start > end_ || length > end_ - start) return gpa{0};
        next_ = start + length;
        return gpa{start};
    }

    constexpr std::uint64_t left() const { return end_ > next_ ? end_ - next_ : 0; }

  private:
    std::uint64_t next_ = first;
    std::uint64_t end_;
};

}  // namespace xos::memory
