// Inline commands: what a person types into telnet. Words, "quoted \x41 words" and 'literal ones'.
#include <charconv>

#include "resp.hpp"

namespace kvd {
namespace {

bool is_space(char c) noexcept {
    return c == ' ' || (c >= '\t' && c <= '\r') || c == '\0';
}

// The decoded form is never longer than the spelled one, so words are decoded where they stand.
class word_reader {
  public:
    explicit word_reader(std::span<char> text) noexcept
        : read_{text.data()}, end_{text.data() + text.size()} {}

    bool skip_spaces() noexcept {
        while (read_ != end_ && is_space(*read_)) ++read_;
        return read_ != end_;
    }

    std::optional<std::span<char>> word() noexcept {
        char* const start = read_;
        char* write = start;
        while (read_ != end_ && !is_space(*read_)) {
            const char c = *read_++;
            if (c != '"' && c != '\'') {
                *write++ = c;
                continue;
            }
            if (!quoted(c, write)) return {};
        }
        return std::span<char>{start, write};
    }

  private:
    bool quoted(char quote, char*& write) noexcept {
        while (read_ != end_ && *read_ != quote)
            *write++ = quote == '"' ? double_quoted_char() : single_quoted_char();
        if (read_ == end_) return false;
        ++read_;
        return read_ == end_ || is_space(*read_);
    }

    char single_quoted_char() noexcept {
        if (*read_ == '\\' && end_ - read_ > 1 && read_[1] == '\'') ++read_;
        return *read_++;
    }

    char double_quoted_char() noexcept {
        if (*read_ != '\\' || end_ - read_ < 2) return *read_++;
        if (read_[1] == 'x' && end_ - read_ >= 4) {
            unsigned char byte = 0;
            if (std::from_chars(read_ + 2, read_ + 4, byte, 16).ptr == read_ + 4) {
                read_ += 4;
                return static_cast<char>(byte);
            }
        }
        const char escaped = read_[1];
        read_ += 2;
        switch (escaped) {
            case 'n':
                return '\n';
            case 'r':
                return '\r';
            case 't':
                return '\t';
            case 'b':
                return '\b';
            case 'a':
                return '\a';
            default:
                return escaped;
        }
    }

    char* read_;
    char* end_;
};

}  // namespace

std::optional<std::vector<std::span<char>>> split_inline(std::span<char> text) {
    std::vector<std::span<char>> words;
    word_reader reader{text};
    while (reader.skip_spaces()) {
        const auto word = reader.word();
        if (!word) return {};
        words.push_back(*word);
    }
    return words;
}

}  // namespace kvd
