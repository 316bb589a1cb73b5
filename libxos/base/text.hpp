// Text into a fixed buffer, for reports written where nothing may be allocated.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libxos/base/raw_syscall.hpp"

namespace xos::base {

template <std::size_t Capacity>
class text {
  public:
    text& operator<<(const char* s) {
        while (*s && length_ < Capacity) buffer_[length_++] = *s++;
        return *this;
    }
    text& append(const char* s, std::size_t n) {
        for (std::size_t i = 0; i < n && length_ < Capacity; i++) buffer_[length_++] = s[i];
        return *this;
    }
    text& hex(std::uint64_t v) { return *this << "0x", digits(v, 16); }
    text& dec(std::uint64_t v) { return digits(v, 10); }
    text& octal(std::uint64_t v) { return digits(v, 8); }
    text& signed_dec(std::int64_t v) {
        if (v < 0) *this << "-";
        return digits(v < 0 ? -static_cast<std::uint64_t>(v) : static_cast<std::uint64_t>(v), 10);
    }
    void write_to(int fd) {
        raw_syscall(__NR_write, fd, as_long(buffer_), static_cast<long>(length_));
        length_ = 0;
    }
    const char* data() const { return buffer_; }
    /// The text as a C string; a full buffer loses its last character for the terminator.
    const char* terminated() {
        buffer_[length_ < Capacity ? length_ : Capacity - 1] = '\0';
        return buffer_;
    }
    std::size_t size() const { return length_; }
    void clear() { length_ = 0; }

  private:
    text& digits(std::uint64_t v, unsigned base) {
        char reversed[24];
        unsigned n = 0;
        do {
            reversed[n++] = "0123456789abcdef"[v % base];
            v /= base;
        } while (v);
        while (n && length_ < Capacity) buffer_[length_++] = reversed[--n];
        return *this;
    }

    char buffer_[Capacity];
    std::size_t length_ = 0;
};

}  // namespace xos::base
