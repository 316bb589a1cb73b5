#include "resp.hpp"

#include <charconv>
#include <cstring>
#include <utility>

#include "integer.hpp"

namespace kvd {

parse_result parser::next() {
    if (!error_.empty()) return parse_result::malformed;
    if (std::exchange(delivered_, false)) {
        input_.consume(scan_);
        scan_ = 0;
        slices_.clear();
        arguments_.clear();
    }
    for (;;) {
        // Empty lines and empty arrays are no commands: they leave nothing but consumed bytes.
        if (expected_ == 0 && scan_ != 0) {
            input_.consume(scan_);
            scan_ = 0;
        }
        if (input_.empty()) return parse_result::incomplete;

        parse_result result{};
        if (expected_ == 0)
            result = *input_.data() == '*' ? parse_header() : parse_inline();
        else
            result = parse_bulk();

        if (result == parse_result::incomplete) {
            if (input_.size() > max_command) return fail("too big command");
            return result;
        }
        if (result == parse_result::malformed) return result;
        if (!slices_.empty() && slices_.size() >= expected_) return finish();
    }
}

std::size_t parser::missing() const noexcept {
    if (!bulk_) return 0;
    const std::size_t here = input_.size() - scan_;
    const std::size_t wanted = *bulk_ + 2;
    return wanted > here ? wanted - here : 0;
}

// The step functions answer `command` for "this step is done".

parse_result parser::parse_inline() {
    const auto found = take_line();
    if (!found) return line_too_long() ? fail("too big inline request") : parse_result::incomplete;
    if (found->length > max_line) return fail("too big inline request");

    char* const base = input_.data();
    const auto words = split_inline({base + found->offset, found->length});
    if (!words) return fail("unbalanced quotes in request");
    for (const auto word : *words)
        slices_.push_back({static_cast<std::size_t>(word.data() - base), word.size()});
    return parse_result::command;
}

parse_result parser::parse_header() {
    const auto found = take_line();
    if (!found)
        return line_too_long() ? fail("too big mbulk count string") : parse_result::incomplete;
    if (found->length > max_line) return fail("too big mbulk count string");

    const std::string_view text{input_.data() + found->offset + 1, found->length - 1};
    const auto count = to_integer(text);
    if (!found->crlf || !count || *count > static_cast<std::int64_t>(max_arguments))
        return fail("invalid multibulk length");
    expected_ = *count > 0 ? static_cast<std::size_t>(*count) : 0;
    return parse_result::command;
}

parse_result parser::parse_bulk() {
    if (!bulk_) {
        if (scan_ == input_.size()) return parse_result::incomplete;
        const char type = input_.data()[scan_];
        if (type != '$') return fail(std::string{"expected '$', got '"} + type + "'");
        const auto found = take_line();
        if (!found)
            return line_too_long() ? fail("too big bulk count string") : parse_result::incomplete;
        if (found->length > max_line) return fail("too big bulk count string");
        const auto length = to_integer({input_.data() + found->offset + 1, found->length - 1});
        if (!found->crlf || !length || *length < 0 || *length > static_cast<std::int64_t>(max_bulk))
            return fail("invalid bulk length");
        bulk_ = static_cast<std::size_t>(*length);
    }
    if (input_.size() - scan_ < *bulk_ + 2) return parse_result::incomplete;
    // Redis skips these two bytes unseen; a wrong length would then be read as a new command.
    if (std::memcmp(input_.data() + scan_ + *bulk_, "\r\n", 2) != 0)
        return fail("bulk string not terminated by CRLF");
    slices_.push_back({scan_, *bulk_});
    scan_ += *bulk_ + 2;
    bulk_.reset();
    return parse_result::command;
}

std::optional<parser::line> parser::take_line() {
    const char* const from = input_.data() + scan_;
    const auto* const end =
        static_cast<const char*>(std::memchr(from, '\n', input_.size() - scan_));
    if (end == nullptr) return {};
    auto length = static_cast<std::size_t>(end - from);
    const bool crlf = length > 0 && from[length - 1] == '\r';
    const line found{scan_, length - (crlf ? 1 : 0), crlf};
    scan_ += length + 1;
    return found;
}

parse_result parser::fail(std::string reason) {
    error_ = "Protocol error: " + std::move(reason);
    slices_.clear();
    arguments_.clear();
    return parse_result::malformed;
}

parse_result parser::finish() {
    const char* const base = input_.data();
    for (const slice s : slices_) arguments_.emplace_back(base + s.offset, s.length);
    expected_ = 0;
    delivered_ = true;
    return parse_result::command;
}

void reply_writer::error(std::string_view text) {
    const auto room = out_.prepare(text.size() + 3);
    char* at = room.data();
    *at++ = '-';
    for (const char c : text) *at++ = (c == '\r' || c == '\n') ? ' ' : c;
    *at++ = '\r';
    *at++ = '\n';
    out_.commit(static_cast<std::size_t>(at - room.data()));
}

void reply_writer::bulk(std::string_view bytes) {
    out_.prepare(bytes.size() + 32);
    put_number('$', static_cast<std::int64_t>(bytes.size()));
    out_.append(bytes);
    out_.append("\r\n");
}

void reply_writer::put(char type, std::string_view text) {
    out_.append({&type, 1});
    out_.append(text);
    out_.append("\r\n");
}

void reply_writer::put_number(char type, std::int64_t value) {
    const auto room = out_.prepare(24);
    room[0] = type;
    char* at = std::to_chars(room.data() + 1, room.data() + 22, value).ptr;
    *at++ = '\r';
    *at++ = '\n';
    out_.commit(static_cast<std::size_t>(at - room.data()));
}

}  // namespace kvd
