// Decimal integers as RESP and INCR accept them: one spelling a value ("7", never "+7", "07" or "
// 7").
#pragma once

#include <charconv>
#include <cstdint>
#include <optional>
#include <string_view>

namespace kvd {

/// The value, or nothing when `text` isn't the canonical spelling of a 64-bit integer.
inline std::optional<std::int64_t> to_integer(std::string_view text) noexcept {
    const std::string_view digits = text.starts_with('-') ? text.substr(1) : text;
    const bool negative = digits.size() != text.size();
    if (digits.starts_with('0') && (digits.size() > 1 || negative)) return {};

    std::int64_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc{} || stop != end) return {};
    return value;
}

}  // namespace kvd
