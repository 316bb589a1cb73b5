// Shared by the files that implement commands: the request, the common replies, the word compare.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>

#include "commands.hpp"
#include "integer.hpp"

namespace kvd {

struct request {
    argument_list args;
    service& host;
    time_point now;
    reply_writer& reply;
};

inline constexpr std::string_view syntax_error = "ERR syntax error";
inline constexpr std::string_view not_an_integer = "ERR value is not an integer or out of range";

// Not tolower(): commands are ASCII whatever the locale.
constexpr char lower_char(char c) noexcept {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
}

inline std::string lower(std::string_view word) {
    std::string folded{word};
    std::ranges::transform(folded, folded.begin(), lower_char);
    return folded;
}

/// `folded` is in lower case.
inline bool same_word(std::string_view word, std::string_view folded) noexcept {
    return std::ranges::equal(word, folded, {}, lower_char);
}

inline aftermath done(request& r) {
    r.reply.simple("OK");
    return aftermath::keep;
}

inline aftermath refuse(request& r, std::string_view error) {
    r.reply.error(error);
    return aftermath::keep;
}

inline aftermath wrong_arity(request& r, std::string_view command) {
    return refuse(r, "ERR wrong number of arguments for '" + std::string{command} + "' command");
}

inline aftermath unknown_subcommand(request& r, std::string_view command) {
    return refuse(r, "ERR unknown subcommand '" + std::string{r.args[1].substr(0, 128)} +
                         "'. Try " + std::string{command} + " HELP.");
}

// data_commands.cpp
aftermath get(request& r);
aftermath set(request& r);
aftermath del(request& r);
aftermath exists(request& r);
aftermath incr(request& r);
aftermath decr(request& r);
aftermath mget(request& r);
aftermath mset(request& r);
aftermath expire(request& r);
aftermath ttl(request& r);
aftermath pttl(request& r);
aftermath dbsize(request& r);
aftermath flush(request& r);

}  // namespace kvd
