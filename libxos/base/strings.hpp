// The few functions for strings, numbers in them and variables that code without libc needs.
#pragma once

#include <cstddef>

namespace xos::base {

inline bool same(const char* a, const char* b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

/// What follows `prefix` in `text`, or null.
inline const char* after(const char* text, const char* prefix) {
    for (; *prefix; text++, prefix++) {
        if (*text != *prefix) return nullptr;
    }
    return text;
}

/// The value of the variable whose name `name` is, with '=' at its end; null if it is not set.
inline const char* variable(char** environment, const char* name) {
    for (; *environment; environment++) {
        if (const char* value = after(*environment, name)) return value;
    }
    return nullptr;
}

inline std::size_t length(const char* text) {
    std::size_t n = 0;
    while (text[n]) n++;
    return n;
}

inline const char* basename(const char* path) {
    const char* name = path;
    for (; *path; path++) {
        if (*path == '/') name = path + 1;
    }
    return name;
}

/// Digits only; false for anything else, and for what is no descriptor and no thread either.
inline bool parse_number(const char* text, int& value) {
    long n = 0;
    if (!*text) return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9' || n > 100'000'000) return false;
        n = n * 10 + (*text - '0');
    }
    value = static_cast<int>(n);
    return true;
}

}  // namespace xos::base
