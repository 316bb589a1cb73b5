// A queue of bytes: appended at the end, consumed at the front, contiguous in between.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <string_view>

namespace kvd {

class byte_buffer {
  public:
    std::size_t size() const noexcept { return end_ - begin_; }
    bool empty() const noexcept { return begin_ == end_; }
    char* data() noexcept { return storage_.get() + begin_; }
    std::string_view view() const noexcept { return {storage_.get() + begin_, size()}; }

    /// Room for at least `bytes` more. Invalidates pointers into the buffer.
    std::span<char> prepare(std::size_t bytes) {
        if (capacity_ - end_ < bytes) make_room(bytes);
        return {storage_.get() + end_, capacity_ - end_};
    }

    /// `bytes` of the prepared room now hold data.
    void commit(std::size_t bytes) noexcept { end_ += bytes; }

    void append(std::string_view bytes) {
        if (bytes.empty()) return;
        std::memcpy(prepare(bytes.size()).data(), bytes.data(), bytes.size());
        commit(bytes.size());
    }

    void consume(std::size_t bytes) noexcept {
        begin_ += bytes;
        if (begin_ != end_) return;
        begin_ = end_ = 0;
        if (capacity_ > kept_when_empty) {
            storage_.reset();
            capacity_ = 0;
        }
    }

  private:
    struct release {
        void operator()(char* memory) const noexcept { std::free(memory); }
    };

    static constexpr std::size_t smallest = 1024;
    static constexpr std::size_t kept_when_empty = std::size_t{1} << 20;

    void make_room(std::size_t bytes) {
        // Moving is paid for by the bytes consumed before, growing by those appended before.
        if (begin_ >= size() && capacity_ - size() >= bytes) {
            if (!empty()) std::memmove(storage_.get(), storage_.get() + begin_, size());
            end_ -= begin_;
            begin_ = 0;
            return;
        }
        const std::size_t capacity = std::max({smallest, 2 * capacity_, end_ + bytes});
        // realloc rather than new: it remaps the pages of a large buffer instead of copying them.
        char* const grown = static_cast<char*>(std::realloc(storage_.get(), capacity));
        if (grown == nullptr) throw std::bad_alloc{};
        static_cast<void>(storage_.release());
        storage_.reset(grown);
        capacity_ = capacity;
    }

    std::unique_ptr<char, release> storage_;
    std::size_t capacity_ = 0;
    std::size_t begin_ = 0;
    std::size_t end_ = 0;
};

}  // namespace kvd
