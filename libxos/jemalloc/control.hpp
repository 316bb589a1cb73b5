// jemalloc's named settings (MALLCTL NAMESPACE in jemalloc(3)), typed.
#pragma once

#include <jemalloc/jemalloc.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <system_error>

namespace xos::memory::control {

/// The name of a setting. Allocates no memory, which may have run out.
struct name {
    char text[48];

    name(const char* whole) { std::snprintf(text, sizeof text, "%s", whole); }
    /// "arena.3.purge"
    name(unsigned arena, const char* what) {
        std::snprintf(text, sizeof text, "arena.%u.%s", arena, what);
    }
};

/// @throws std::system_error that names the setting.
inline void check(int error, const name& n) {
    if (error)
        throw std::system_error(error, std::generic_category(),
                                std::string("jemalloc's ") + n.text);
}

template <class T>
T read(const name& n) {
    T value{};
    std::size_t size = sizeof(T);
    check(mallctl(n.text, &value, &size, nullptr, 0), n);
    return value;
}

/// Also for actions that take an argument.
template <class T>
[[nodiscard]] int write(const name& n, T value) noexcept {
    return mallctl(n.text, nullptr, nullptr, &value, sizeof(T));
}

inline int act(const name& n) noexcept {
    return mallctl(n.text, nullptr, nullptr, nullptr, 0);
}

}  // namespace xos::memory::control
