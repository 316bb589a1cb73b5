// String functions (numbers and environment variables included) for code without libc.
#pragma once

#include <cstddef>

namespace xos::base {

inline bool same(const char* a, const char* b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

/// Returns what follows `prefix` in `text`, or null.
inline const char* after(const char* text, const char* prefix) {
    for (; *prefix; text++, prefix++) {
        if (*text != *prefix) return nullptr;
    }
    return text;
}

/// Returns the value of a variable; `name` ends with '='. Null if it is not set.
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

/// Accepts digits only. False for any other text, and for a number too large for a descriptor or a
/// thread id.
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
