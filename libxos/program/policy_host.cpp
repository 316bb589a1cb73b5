#include <elf.h>

#include <initializer_list>

#include "libxos/base/strings.hpp"
#include "libxos/program/policy.hpp"

namespace xos::program {

using base::after;
using base::basename;
using base::length;
using base::same;
using base::variable;

namespace {

constexpr char library_name[] = "libxos-preload.so", loader_name[] = "xos/xos-loader";

constexpr bool ends_entry(char c) {
    return c == '\0' || c == ':' || c == ' ';
}

/// Returns what follows `library` if `list` begins with it; else null.
const char* behind_entry(const char* list, const char* library) {
    if (!*library) return nullptr;
    const char* rest = after(list, library);
    if (!rest || !ends_entry(*rest)) return nullptr;
    return *rest ? rest + 1 : rest;
}

/// Without `xos run`: finds the entry of LD_PRELOAD that is this library, if it is a path.
std::size_t own_entry(const char* list, const char*& begin) {
    while (*list) {
        begin = list;
        const char* name = list;
        for (; !ends_entry(*list); list++) {
            if (*list == '/') name = list + 1;
        }
        const char* rest = after(name, library_name);
        if (*begin == '/' && rest == list) return static_cast<std::size_t>(list - begin);
        if (*list) list++;
    }
    return 0;
}

}  // namespace

bool is_reserved(const char* text) {
    return after(text, "XOS_") != nullptr;
}

policy::problem policy::read(char** environment) {
    bool fits = true;
    const auto copy = [&](const char* from, std::size_t n, const char* tail = "") {
        const char* start = text + used;
        const std::size_t all = n + length(tail) + 1;
        if (all > text_size - used) {
            fits = false;
            return "";
        }
        for (std::size_t i = 0; i < n; i++) text[used++] = from[i];
        for (; *tail; tail++) text[used++] = *tail;
        text[used++] = '\0';
        return start;
    };
    governs = true;
    if (const char* wanted = variable(environment, "XOS_FOLLOW=")) {
        if (same(wanted, "none"))
            successors = follow::none;
        else if (*wanted && !same(wanted, "all"))
            return problem::follow;
    }
    if (const char* wanted = variable(environment, "XOS_LOADER=")) {
        if (same(wanted, "own"))
            way = loading::own;
        else if (same(wanted, "preload"))
            way = loading::preload;
        else if (*wanted && !same(wanted, "auto"))
            return problem::loader;
    }
    if (const char* wanted = variable(environment, "XOS_FALLBACK=")) {
        falls_back = same(wanted, "outside");
        successors_fall_back = !same(wanted, "fail");
        if (*wanted && !falls_back && successors_fall_back && !same(wanted, "auto"))
            return problem::fallback;
    }
    kept[kept_count++] = successors_fall_back ? "XOS_FALLBACK=outside" : "XOS_FALLBACK=fail";
    for (char** e = environment; *e; e++) {
        if (!is_reserved(*e) || after(*e, padding_variable) || after(*e, "XOS_FALLBACK=")) continue;
        if (kept_count == most_variables) return problem::size;
        kept[kept_count++] = copy(*e, length(*e));
    }
    const char* own = variable(environment, "XOS_PRELOAD=");
    std::size_t n = own ? length(own) : 0;
    if (!n) {
        const char* list = variable(environment, preload_variable);
        n = list ? own_entry(list, own) : 0;
    }
    if (n) {
        library = copy(own, n);
        loader = copy(library, static_cast<std::size_t>(basename(library) - library), loader_name);
    }
    if (const char* others = variable(environment, "XOS_ALSO_PRELOAD="))
        also = copy(others, length(others));
    return fits ? problem::none : problem::size;
}

const char* policy::without_own(const char* value) const {
    for (const char* own : {library, also}) {
        if (const char* rest = behind_entry(value, own)) value = rest;
    }
    return value;
}

std::size_t policy::hide(char** environment) const {
    char** to = environment;
    char** from = environment;
    for (; *from; from++) {
        if (is_reserved(*from)) continue;
        const char* value = after(*from, preload_variable);
        const char* rest = value ? without_own(value) : nullptr;
        if (rest != value) {
            if (!*rest) continue;
            char* at = *from + (sizeof preload_variable - 1);
            do *at++ = *rest;
            while (*rest++);
        }
        *to++ = *from;
    }
    *to = nullptr;
    return static_cast<std::size_t>(from - to);
}

void close_gap(char** environment, std::size_t hidden) {
    char** end = environment;
    while (*end) end++;
    if (hidden % 2) {
        static char nothing[] = "";
        *end = end == environment ? nothing : end[-1];
        *++end = nullptr;
    }
    auto* pair = reinterpret_cast<Elf64_auxv_t*>(end + 1);
    for (std::size_t i = 0; i < hidden / 2; i++) pair[i] = {.a_type = AT_IGNORE, .a_un = {0}};
}

std::size_t policy::join(char* to, std::size_t size, bool with_library, const char* others) const {
    std::size_t n = 0;
    for (const char* piece : {with_library ? library : "", also, without_own(others)}) {
        if (!*piece) continue;
        if (n + length(piece) + 2 > size) return 0;
        if (n) to[n++] = ':';
        for (; *piece; piece++) to[n++] = *piece;
    }
    if (n >= size) return 0;
    to[n] = '\0';
    return n + 1;
}

}  // namespace xos::program
