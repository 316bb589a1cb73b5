// RESP2, the protocol of Redis: an incremental parser of requests and a writer of replies.
//
//     parser in;
//     in.feed("*1\r\n$4\r\nPI");
//     in.next();                        // parse_result::incomplete
//     in.feed("NG\r\n");
//     in.next();                        // parse_result::command, arguments() == {"PING"}
//
// Pure: no descriptors, no clock. How the bytes are cut into pieces never changes what is parsed.
// Protocol: https://redis.io/docs/reference/protocol-spec/
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "byte_buffer.hpp"

namespace kvd {

using argument_list = std::span<const std::string_view>;

enum class parse_result {
    command,     ///< arguments() holds one, never empty
    incomplete,  ///< more bytes are needed
    malformed,   ///< error() says why; final, the connection can't be resynchronised
};

class parser {
  public:
    static constexpr std::size_t max_line = std::size_t{64} << 10;
    static constexpr std::size_t max_bulk = std::size_t{512} << 20;
    static constexpr std::size_t max_arguments = std::size_t{1} << 20;
    static constexpr std::size_t max_command = std::size_t{1} << 30;

    /// Room to receive into, then how much was received. Invalidates arguments().
    std::span<char> prepare(std::size_t bytes) { return input_.prepare(bytes); }
    void commit(std::size_t bytes) noexcept { input_.commit(bytes); }

    void feed(std::string_view bytes) { input_.append(bytes); }

    /// Takes the next command off the input.
    parse_result next();

    /// The command found last; views into the input, valid until feed(), prepare() or next().
    argument_list arguments() const noexcept { return arguments_; }

    std::string_view error() const noexcept { return error_; }

    /// Bytes still to come of the value being received: a hint for the size of the next read.
    std::size_t missing() const noexcept;

  private:
    struct slice {
        std::size_t offset;
        std::size_t length;
    };
    struct line {
        std::size_t offset;
        std::size_t length;  // without the line end
        bool crlf;
    };

    parse_result parse_inline();
    parse_result parse_header();
    parse_result parse_bulk();
    std::optional<line> take_line();
    bool line_too_long() const noexcept { return input_.size() - scan_ > max_line; }
    parse_result fail(std::string reason);
    parse_result finish();

    byte_buffer input_;
    std::size_t scan_ = 0;             // parsed so far of the command at the front of input_
    std::size_t expected_ = 0;         // arguments the current array announced, 0 outside an array
    std::optional<std::size_t> bulk_;  // length of the argument whose bytes come next
    bool delivered_ = false;           // the first scan_ bytes were handed out by arguments()
    std::vector<slice> slices_;        // offsets, because input_ may move while it grows
    std::vector<std::string_view> arguments_;
    std::string error_;
};

/// Splits an inline command as Redis does (quotes, \xHH), decoding inside `text`.
/// Nothing when a quote is not closed or not followed by a space.
std::optional<std::vector<std::span<char>>> split_inline(std::span<char> text);

class reply_writer {
  public:
    explicit reply_writer(byte_buffer& out) noexcept : out_{out} {}

    void simple(std::string_view text) { put('+', text); }
    /// `text` starts with the error's code: "ERR syntax error". Line ends in it become spaces.
    void error(std::string_view text);
    void integer(std::int64_t value) { put_number(':', value); }
    void bulk(std::string_view bytes);
    void null() { out_.append("$-1\r\n"); }
    /// Announces `elements` replies.
    void array(std::size_t elements) { put_number('*', static_cast<std::int64_t>(elements)); }

  private:
    void put(char type, std::string_view text);
    void put_number(char type, std::int64_t value);

    byte_buffer& out_;
};

}  // namespace kvd
