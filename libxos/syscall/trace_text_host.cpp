#include <linux/fcntl.h>

#include "libxos/base/bytes.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/names.hpp"
#include "libxos/syscall/trace_text.hpp"

namespace xos::syscall {

namespace {

constexpr std::size_t shown_of_path = 128, shown_of_bytes = 32, shown_words = 8;
constexpr std::uint64_t page = 4096;

template <std::size_t Most>
struct piece {
    char bytes[Most];
    std::size_t length = 0;
    bool readable = false;
    bool whole = false;
};

/// Reads up to the end of a page at a time: the next page may not exist.
template <std::size_t Most>
void read_string(piece<Most>& p, std::uint64_t at) {
    while (p.length < Most) {
        const std::uint64_t rest = page - (at + p.length) % page;
        const std::size_t n = rest < Most - p.length ? rest : Most - p.length;
        if (!copy_in(p.bytes + p.length, at + p.length, n)) return;
        p.readable = true;
        for (const std::size_t end = p.length + n; p.length < end; p.length++) {
            if (p.bytes[p.length] == '\0') {
                p.whole = true;
                return;
            }
        }
    }
}

template <std::size_t Most>
void read_bytes(piece<Most>& p, std::uint64_t at, std::uint64_t length) {
    p.length = length < Most ? length : Most;
    p.whole = p.length == length;
    p.readable = p.length == 0 || copy_in(p.bytes, at, p.length);
}

void quote(trace_line& line, const char* bytes, std::size_t n) {
    line << "\"";
    for (std::size_t i = 0; i < n; i++) {
        const auto c = static_cast<unsigned char>(bytes[i]);
        const char one[2] = {static_cast<char>(c), '\0'};
        if (c == '\n') {
            line << "\\n";
        } else if (c == '\t') {
            line << "\\t";
        } else if (c == '\r') {
            line << "\\r";
        } else if (c == '"' || c == '\\') {
            line << "\\" << one;
        } else if (c >= ' ' && c < 127) {
            line << one;
        } else {
            const char hex[5] = {'\\', 'x', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15],
                                 '\0'};
            line << hex;
        }
    }
    line << "\"";
}

void address(trace_line& line, std::uint64_t value) {
    if (value)
        line.hex(value);
    else
        line << "NULL";
}

template <std::size_t Most>
void quoted(trace_line& line, std::uint64_t at, const piece<Most>& p) {
    if (!p.readable) return address(line, at);
    quote(line, p.bytes, p.length);
    if (!p.whole) line << "...";
}

template <std::size_t Most>
void string(trace_line& line, std::uint64_t at) {
    piece<Most> p;
    if (at) read_string(p, at);
    quoted(line, at, p);
}

void bytes(trace_line& line, std::uint64_t at, std::uint64_t length) {
    piece<shown_of_bytes> p;
    if (at) read_bytes(p, at, length);
    quoted(line, at, p);
}

void words(trace_line& line, std::uint64_t at) {
    std::uint64_t word = 0;
    if (!at || !copy_in(&word, at, sizeof word)) return address(line, at);
    line << "[";
    for (std::size_t i = 0; word; i++) {
        if (i) line << ", ";
        if (i == shown_words) {
            line << "...";
            break;
        }
        string<shown_of_bytes>(line, word);
        at += sizeof word;
        if (!copy_in(&word, at, sizeof word)) break;
    }
    line << "]";
}

void how_many_words(trace_line& line, std::uint64_t at) {
    address(line, at);
    constexpr unsigned most = 10000;
    std::uint64_t word = 0;
    unsigned n = 0;
    while (at && n < most && copy_in(&word, at + n * sizeof word, sizeof word) && word) n++;
    if (n) (line << " /* ").dec(n) << " strings */";
}

void small_or_hex(trace_line& line, std::uint64_t value) {
    const auto number = static_cast<std::int32_t>(value);
    const bool is_int = value >> 32 == 0 || value >> 32 == 0xffffffff;
    if (is_int && number > -10000 && number < 10000)
        line.signed_dec(number);
    else
        line.hex(value);
}

/// The size of the application's buffer: the next `size` argument.
std::uint64_t measure_of(const call_facts& e, const traced_call& call, unsigned i) {
    while (++i < e.argument_count) {
        if (e.arguments.data()[i] == argument::size) return call.arguments[i];
    }
    return 0;
}

bool is_second_list(const call_facts& e, unsigned i) {
    return i > 0 && e.arguments.data()[i - 1] == argument::argv;
}

void value(trace_line& line, const call_facts& e, const traced_call& call, unsigned i) {
    const std::uint64_t v = call.arguments[i];
    const auto as_int = static_cast<std::int32_t>(v);
    switch (e.arguments.data()[i]) {
        case argument::path:
            return string<shown_of_path>(line, v);
        case argument::string:
            return string<shown_of_bytes>(line, v);
        case argument::in_bytes:
            return bytes(line, v, measure_of(e, call, i));
        case argument::argv:
            return is_second_list(e, i) ? how_many_words(line, v) : words(line, v);
        case argument::dirfd:
            if (as_int == AT_FDCWD) {
                line << "AT_FDCWD";
                return;
            }
            [[fallthrough]];
        case argument::fd:
        case argument::pid:
        case argument::id:
        case argument::clock:
            line.signed_dec(as_int);
            return;
        case argument::signal:
            if (const char* name = signal_name(static_cast<unsigned>(v)))
                line << name;
            else
                line.signed_dec(as_int);
            return;
        case argument::size:
        case argument::count:
            line.dec(v);
            return;
        case argument::offset:
            line.signed_dec(static_cast<std::int64_t>(v));
            return;
        case argument::mode:
            (line << "0").octal(v & 0xffffffff);
            return;
        case argument::flags:
            if (v)
                line.hex(v);
            else
                line << "0";
            return;
        case argument::integer:
        case argument::none:
            return small_or_hex(line, v);
        // The command decides whether this is an integer or a pointer.
        case argument::inout_struct:
            if (v < page) return small_or_hex(line, v);
            [[fallthrough]];
        default:
            return address(line, v);
    }
}

constexpr unsigned most_arguments = 6;

/// The facts of a call; for a call that the table lacks, six numbers.
call_facts facts_of(std::uint64_t number) {
    call_facts e = lookup(number < table_size ? static_cast<unsigned>(number) : table_size);
    if (e.name.empty()) e.argument_count = most_arguments;
    return e;
}

bool needs_result(const call_facts& e, unsigned i) {
    return e.arguments.data()[i] == argument::out_bytes;
}

bool returns_address(std::uint64_t number) {
    return number == __NR_mmap || number == __NR_mremap || number == __NR_brk ||
           number == __NR_shmat;
}

}  // namespace

unsigned begin_call(trace_line& line, const traced_call& call) {
    const call_facts e = facts_of(call.number);
    if (e.name.empty())
        (line << "syscall_").hex(call.number);
    else
        line.append(e.name.data(), e.name.size());
    line << "(";
    unsigned i = 0;
    for (; i < e.argument_count && !needs_result(e, i); i++) {
        if (i) line << ", ";
        value(line, e, call, i);
    }
    return i;
}

void end_call_without_result(trace_line& line, const traced_call& call, unsigned next) {
    const call_facts e = facts_of(call.number);
    for (unsigned i = next; i < e.argument_count; i++) {
        if (i) line << ", ";
        value(line, e, call, i);
    }
    line << ") = ?";
}

void end_call(trace_line& line, const traced_call& call, unsigned next, long result) {
    const call_facts e = facts_of(call.number);
    for (unsigned i = next; i < e.argument_count; i++) {
        if (i) line << ", ";
        const std::uint64_t room = measure_of(e, call, i),
                            written = static_cast<std::uint64_t>(result);
        if (needs_result(e, i) && result > 0)
            bytes(line, call.arguments[i], written < room ? written : room);
        else
            value(line, e, call, i);
    }
    line << ") = ";
    if (base::is_error(result)) {
        const auto number = static_cast<unsigned>(-result);
        line << "-1 ";
        if (const char* name = error_name(number))
            line << name;
        else
            (line << "errno ").dec(number);
    } else if (returns_address(call.number)) {
        line.hex(static_cast<std::uint64_t>(result));
    } else {
        line.signed_dec(result);
    }
}

}  // namespace xos::syscall
