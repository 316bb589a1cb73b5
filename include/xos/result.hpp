// A value, or why there is none.
//
//     const xos::result<std::size_t> got = reading.result();
//     if (!got) log(got.error().message());
//     else use(*got);
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cassert>
#include <system_error>
#include <utility>

namespace xos {

/// What std::expected<T, std::error_code> is in C++23. Call its functions anywhere.
template <class T>
class [[nodiscard]] result {
  public:
    constexpr result(T value) noexcept : value_(std::move(value)) {}
    result(std::error_code error) noexcept : error_(error) { assert(error); }

    [[nodiscard]] bool has_value() const noexcept { return !error_; }
    explicit operator bool() const noexcept { return has_value(); }

    /// @throws std::system_error with error(), if there is no value.
    [[nodiscard]] const T& value() const {
        if (error_) throw std::system_error(error_);
        return value_;
    }
    /// There must be a value.
    [[nodiscard]] const T& operator*() const noexcept {
        assert(has_value());
        return value_;
    }
    [[nodiscard]] T value_or(T other) const { return error_ ? std::move(other) : value_; }
    /// Its value() is 0 if there is no error.
    [[nodiscard]] std::error_code error() const noexcept { return error_; }

  private:
    T value_{};
    std::error_code error_;
};

template <>
class [[nodiscard]] result<void> {
  public:
    result() noexcept = default;
    result(std::error_code error) noexcept : error_(error) { assert(error); }

    [[nodiscard]] bool has_value() const noexcept { return !error_; }
    explicit operator bool() const noexcept { return has_value(); }
    /// @throws std::system_error with error(), if there is one.
    void value() const {
        if (error_) throw std::system_error(error_);
    }
    [[nodiscard]] std::error_code error() const noexcept { return error_; }

  private:
    std::error_code error_;
};

}  // namespace xos

#endif  // C++20
