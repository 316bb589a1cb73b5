#include "checkpoint_log.hpp"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

namespace gc_dirty {

namespace {

constexpr std::size_t write_size = std::size_t{1} << 20;

struct epoch_header {
    char magic[8] = {'G', 'C', 'E', 'P', 'O', 'C', 'H', '1'};
    std::uint64_t epoch = 0;
    std::uint64_t pages = 0;
};

/// FNV-1a, a word at a time; everything in the file is a multiple of 8 bytes.
std::uint64_t add_to_checksum(std::uint64_t sum, const void* data, std::size_t bytes) {
    const auto* at = static_cast<const char*>(data);
    for (; bytes >= 8; bytes -= 8, at += 8) {
        std::uint64_t word;
        std::memcpy(&word, at, 8);
        sum = (sum ^ word) * 0x100000001b3;
    }
    return sum;
}
constexpr std::uint64_t empty_checksum = 0xcbf29ce484222325;

class reader {
  public:
    explicit reader(int fd) : fd_(fd), buffer_(write_size) {}

    bool at_end() { return next_ == end_ && !fill(); }
    void get(void* to, std::size_t bytes) {
        for (auto* at = static_cast<std::byte*>(to); bytes;) {
            if (at_end()) throw std::runtime_error("the log ends in the middle of an epoch");
            const std::size_t n = std::min(bytes, end_ - next_);
            std::memcpy(at, buffer_.data() + next_, n);
            next_ += n, at += n, bytes -= n;
        }
    }

  private:
    bool fill() {
        const ssize_t got = ::pread(fd_, buffer_.data(), buffer_.size(), offset_);
        if (got < 0) throw std::system_error(errno, std::generic_category(), "reading the log");
        offset_ += got;
        next_ = 0;
        end_ = static_cast<std::size_t>(got);
        return got != 0;
    }

    int fd_;
    off_t offset_ = 0;
    std::vector<std::byte> buffer_;
    std::size_t next_ = 0, end_ = 0;
};

}  // namespace

checkpoint_log::checkpoint_log() : file_(std::tmpfile()) {
    if (!file_) throw std::system_error(errno, std::generic_category(), "a temporary file");
    buffer_.reserve(write_size);
}

void checkpoint_log::append(const page_set& changed, const std::byte* memory) {
    checksum_ = empty_checksum;
    const epoch_header header{.epoch = epochs_++, .pages = changed.size()};
    put(&header, sizeof header);
    // Through a buffer, because system calls cannot see a view: write(2) of one answers EFAULT.
    changed.for_each([&](std::uint64_t page) {
        put(&page, sizeof page);
        put(memory + page * xos::page_size, xos::page_size);
    });
    const std::uint64_t sum = checksum_;
    put(&sum, sizeof sum);
    flush();
}

void checkpoint_log::put(const void* from, std::size_t bytes) {
    checksum_ = add_to_checksum(checksum_, from, bytes);
    if (buffer_.size() + bytes > write_size) flush();
    const auto* data = static_cast<const std::byte*>(from);
    buffer_.insert(buffer_.end(), data, data + bytes);
}

void checkpoint_log::flush() {
    for (std::size_t done = 0; done < buffer_.size();) {
        const ssize_t n = ::write(descriptor(), buffer_.data() + done, buffer_.size() - done);
        if (n < 0) throw std::system_error(errno, std::generic_category(), "writing the log");
        done += static_cast<std::size_t>(n);
    }
    buffer_.clear();
}

std::uint64_t checkpoint_log::replay(std::span<std::byte> memory) const {
    const std::uint64_t pages = memory.size() / xos::page_size;
    reader in(descriptor());
    std::vector<std::byte> contents(xos::page_size);
    std::uint64_t epoch = 0;
    for (; !in.at_end(); epoch++) {
        const auto wrong = [&](const char* what) {
            return std::runtime_error("epoch " + std::to_string(epoch) + " of the log: " + what);
        };
        const epoch_header expected{.epoch = epoch};
        epoch_header header;
        in.get(&header, sizeof header);
        if (std::memcmp(header.magic, expected.magic, sizeof header.magic) != 0)
            throw wrong("no header");
        if (header.epoch != epoch) throw wrong("another number in its header");
        if (header.pages > pages) throw wrong("more pages than the memory has");
        std::uint64_t sum = add_to_checksum(empty_checksum, &header, sizeof header);
        for (std::uint64_t i = 0; i < header.pages; i++) {
            std::uint64_t page;
            in.get(&page, sizeof page);
            if (page >= pages) throw wrong("a page beyond the memory");
            in.get(contents.data(), contents.size());
            sum = add_to_checksum(sum, &page, sizeof page);
            sum = add_to_checksum(sum, contents.data(), contents.size());
            std::memcpy(memory.data() + page * xos::page_size, contents.data(), contents.size());
        }
        std::uint64_t stored;
        in.get(&stored, sizeof stored);
        if (stored != sum) throw wrong("its checksum does not match");
    }
    return epoch;
}

}  // namespace gc_dirty
