// Writes statistics for programs to read: one object in one line.
#include "libxos/api/stats_text.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::api {

namespace {

using base::as_long;
using base::raw_syscall;
using cell::the_cell;

constexpr const char* punt_keys[] = {"call", "watched", "signal", "gate", "frame", "vcpu", "look"};
static_assert(sizeof punt_keys / sizeof *punt_keys ==
              static_cast<unsigned>(statistics::punt::count));
/// Intel SDM volume 3, table 6-1.
constexpr const char* exception_keys[32] = {
    "DE", "DB", "NMI", "BP", "OF", "BR", "UD", "NM", "DF", "", "TS", "NP", "SS", "GP", "PF", "",
    "MF", "AC", "MC",  "XM", "VE", "CP", "",   "",   "",   "", "",   "",   "HV", "VC", "SX", ""};

/// Returns how many bytes at `s` form one well-formed UTF-8 character; 0 if none do.
unsigned character_length(const char* s, const char* end) {
    const auto at = [&](long i) {
        return s + i < end ? static_cast<unsigned char>(s[i]) : static_cast<unsigned char>(0);
    };
    const auto follows = [&](long i, unsigned low = 0x80, unsigned high = 0xbf) {
        return at(i) >= low && at(i) <= high;
    };
    const unsigned first = at(0);
    if (first < 0x80) return 1;
    if (first >= 0xc2 && first <= 0xdf) return follows(1) ? 2 : 0;
    if (first >= 0xe0 && first <= 0xef) {
        // Overlong forms and surrogates are invalid.
        const unsigned low = first == 0xe0 ? 0xa0 : 0x80, high = first == 0xed ? 0x9f : 0xbf;
        return follows(1, low, high) && follows(2) ? 3 : 0;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        const unsigned low = first == 0xf0 ? 0x90 : 0x80, high = first == 0xf4 ? 0x8f : 0xbf;
        return follows(1, low, high) && follows(2) && follows(3) ? 4 : 0;
    }
    return 0;
}

class writer {
  public:
    explicit writer(json_line& out) : out_(out) {}

    writer& key(const char* name) {
        separate();
        string(name, base::length(name));
        out_ << ":";
        fresh_ = true;
        return *this;
    }
    void value(std::uint64_t n) {
        separate();
        out_.dec(n);
    }
    void value(const char* text) { value(text, base::length(text)); }
    void value(const char* text, std::size_t n) {
        separate();
        string(text, n);
    }
    void field(const char* name, std::uint64_t n) { key(name).value(n); }
    void field(const char* name, const char* text) { key(name).value(text); }
    void open() {
        separate();
        out_ << "{";
        fresh_ = true;
    }
    void close() {
        out_ << "}";
        fresh_ = false;
    }

  private:
    void separate() {
        if (!fresh_) out_ << ",";
        fresh_ = false;
    }
    void string(const char* s, std::size_t n) {
        out_ << "\"";
        for (const char* end = s + n; s < end;) {
            const unsigned length = character_length(s, end);
            const auto c = static_cast<unsigned char>(*s);
            if (length == 0) {
                out_ << "\\ufffd";
            } else if (length == 1 && (c < ' ' || c == 127)) {
                const char code[7] = {
                    '\\', 'u', '0', '0', "0123456789abcdef"[c >> 4], "0123456789abcdef"[c & 15],
                    '\0'};
                out_ << code;
            } else {
                if (c == '"' || c == '\\') out_ << "\\";
                out_.append(s, length);
            }
            s += length ? length : 1;
        }
        out_ << "\"";
    }

    json_line& out_;
    bool fresh_ = true;
};

void program_name(writer& w) {
    // Used where Linux knows only the loader.
    const auto& own = the_cell.program.path;
    if (*own) return void(w.key("program").value(own));
    char path[512];
    const long n =
        raw_syscall(__NR_readlink, as_long("/proc/self/exe"), as_long(path), sizeof path);
    w.key("program").value(path, n > 0 ? static_cast<std::size_t>(n) : 0);
}

void system_calls(writer& w, const statistics& s) {
    w.key("syscalls").open();
    for (unsigned n = 0; n < statistics::syscall_numbers; n++) {
        bool any = false;
        for (const auto& path : s.syscalls) any = any || path.data()[n];
        if (!any) continue;
        const auto& entry = syscall::lookup(n);
        base::text<16> number;
        number << "#";
        number.dec(n);
        w.key(entry.name.empty() ? number.terminated() : entry.name.data()).open();
        for (unsigned p = 0; p < s.syscalls.size(); p++) {
            if (const auto calls = s.syscalls.data()[p].data()[n]) w.field(path_names[p], calls);
        }
        w.close();
    }
    w.close();
}

void exceptions(writer& w, const statistics& s) {
    w.key("faults").open();
    for (unsigned v = 0; v < s.exceptions.size(); v++) {
        const auto taken = s.exceptions.data()[v];
        if (!taken) continue;
        base::text<16> number;
        number << "#";
        number.dec(v);
        w.field(*exception_keys[v] ? exception_keys[v] : number.terminated(), taken);
    }
    w.close();
}

void vector_part(writer& w, const statistics& s) {
    w.key("vectors").open();
    w.field("exits", s.vector_exits);
    w.field("calls", s.vector_calls);
    w.close();
}

void module_part(writer& w, const statistics& s) {
    if (!the_cell.calls.module.attached()) return;
    w.key("module").open();
    w.field("vectors", s.vectors);
    w.field("interrupted", s.interrupted);
    w.key("left_to_user_space").open();
    for (unsigned k = 0; k < s.punts.size(); k++) w.field(punt_keys[k], s.punts.data()[k]);
    w.close();
    w.close();
}

}  // namespace

void describe_as_json(const statistics& s, const memory_inside& memory, const char* why,
                      json_line& out) {
    writer w(out);
    w.open();
    w.field("pid", static_cast<std::uint64_t>(raw_syscall(__NR_getpid)));
    program_name(w);
    w.field("why", why);
    w.field("mode", cell::mode_name(the_cell.current));
    w.field("transport", cell::transport_name(the_cell.calls.way.name));
    w.field("entries", s.entries);
    w.field("runs", s.runs);
    w.field("vcpus", s.vcpus);
    w.field("chunks", s.chunks);
    w.field("hops", s.hops);
    w.field("signals", s.signals);
    w.field("programs_outside", the_cell.program.outside_starts);
    w.key("exits").open();
    for (unsigned k = 0; k < s.exits.size(); k++) w.field(exit_names[k], s.exits.data()[k]);
    w.close();
    system_calls(w, s);
    exceptions(w, s);
    w.key("memory_inside").open();
    w.field("reserved", memory.reserved);
    w.field("usable", memory.usable);
    w.field("used", memory.used);
    w.close();
    vector_part(w, s);
    module_part(w, s);
    w.close();
    out << "\n";
}

}  // namespace xos::api
