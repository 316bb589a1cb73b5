// The LD_PRELOAD face: an unmodified program is in the cell before its main() begins.
//
// The dynamic linker runs this constructor on the program's only thread. What it should do comes in
// the environment, where `xos run` puts it; docs/run.md has the variables.
#include <linux/fcntl.h>

#include "libxos/api/rseq.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/api/stats_text.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/failure_text.hpp"
#include "libxos/syscall/trace.hpp"

namespace {

using namespace xos;
using cell::the_cell;

/// The status of `env` and `nice` when they themselves fail.
constexpr int own_failure = 125;

const char* variable(char** environment, const char* name) {
    for (; *environment; environment++) {
        const char *entry = *environment, *wanted = name;
        while (*wanted && *entry == *wanted) entry++, wanted++;
        if (!*wanted && *entry == '=') return entry + 1;
    }
    return nullptr;
}

bool same(const char* a, const char* b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

[[noreturn]] void give_up(const char* what, const char* advice, int error) {
    base::text<1024> line;
    line << "xos: " << what;
    if (*advice) line << "; " << advice;
    if (error) (line << " (errno ").dec(static_cast<unsigned>(error)) << ")";
    line << "\n";
    line.write_to(2);
    for (;;) base::raw_syscall(__NR_exit_group, own_failure);
}

bool parse_mode(const char* text, mode& m) {
    for (mode candidate : {mode::automatic, mode::ring0, mode::ring3, mode::pvm}) {
        if (!same(text, cell::mode_name(candidate))) continue;
        m = candidate;
        return true;
    }
    return false;
}

/// Digits, and K, M or G.
bool parse_bytes(const char* text, std::size_t& bytes) {
    if (*text < '0' || *text > '9') return false;
    std::size_t n = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        const auto digit = static_cast<std::size_t>(*text - '0');
        if (__builtin_mul_overflow(n, std::size_t{10}, &n) || __builtin_add_overflow(n, digit, &n))
            return false;
    }
    unsigned shift = 0;
    if (*text == 'K') shift = 10;
    if (*text == 'M') shift = 20;
    if (*text == 'G') shift = 30;
    if (shift) text++;
    if (*text || n > (~std::size_t{0} >> 1) >> shift) return false;
    bytes = n << shift;
    return true;
}

/// A name, and for "window" perhaps ":PAGES".
bool parse_pager(const char* text, cell::cell_options& options) {
    constexpr const char* names[] = {"huge", "demand", "populate", "window"};
    for (unsigned i = 0; i < 4; i++) {
        if (!same(text, names[i])) continue;
        options.process_pager = i;
        return true;
    }
    constexpr char prefix[] = "window:";
    for (const char* p = prefix; *p; p++, text++) {
        if (*text != *p) return false;
    }
    std::size_t pages = 0;
    if (!parse_bytes(text, pages) || pages == 0 || pages > 99999) return false;
    options.process_pager = 3;
    options.process_window = static_cast<unsigned>(pages);
    return true;
}

bool parse_transport(const char* text, transport& t) {
    for (transport candidate : {transport::automatic, transport::exit, transport::module}) {
        if (!same(text, cell::transport_name(candidate))) continue;
        t = candidate;
        return true;
    }
    return false;
}

/// What follows `prefix` in `text`, or null.
const char* after(const char* text, const char* prefix) {
    while (*prefix && *text == *prefix) text++, prefix++;
    return *prefix ? nullptr : text;
}

/// Unset, empty and 0 are the same: no.
bool is_off(const char* value) {
    return !value || !*value || same(value, "0");
}

/// A file to append to, out of the application's way; -1, and a line about it, if there is none.
/// The program runs all the same: it may have got other rights than who asked for the file.
int open_log(const char* name, const char* variable_name) {
    constexpr long flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY;
    long fd = base::raw_syscall(__NR_open, base::as_long(name), flags, 0666);
    if (fd >= 0) fd = the_cell.descriptors.adopt(static_cast<int>(fd));
    if (fd >= 0) return static_cast<int>(fd);
    if (the_cell.quiet) return -1;
    base::text<1024> line;
    line << "xos: " << variable_name << ": " << name << " cannot be opened (errno ";
    line.dec(static_cast<unsigned>(-fd)) << "): this process does without it\n";
    line.write_to(the_cell.report_fd);
    return -1;
}

int statistics_fd = -1;

const statistics& collected() {
    static statistics s;
    s = statistics();
    api::collect(s);
    return s;
}

void print_statistics(const char*) {
    api::describe(
        collected(),
        [](const char* text, std::size_t n, void*) {
            base::raw_syscall(__NR_write, the_cell.report_fd, base::as_long(text),
                              static_cast<long>(n));
        },
        nullptr);
}

void append_statistics(const char* why) {
    static api::json_line line;
    api::describe_as_json(collected(), api::collect_memory(), why, line);
    line.write_to(statistics_fd);
}

void choose_statistics(const char* wanted) {
    if (is_off(wanted)) return;
    if (same(wanted, "1")) {
        the_cell.at_exit = print_statistics;
        return;
    }
    const char* file = after(wanted, "json:");
    if (!file || !*file) give_up("XOS_STATS is neither 1 nor json:FILE", "", 0);
    statistics_fd = open_log(file, "XOS_STATS");
    if (statistics_fd >= 0) the_cell.at_exit = append_statistics;
}

void choose_trace(const char* wanted) {
    if (is_off(wanted)) return;
    const int fd = same(wanted, "1") ? the_cell.report_fd : open_log(wanted, "XOS_TRACE");
    if (fd >= 0) syscall::start_trace(fd);
}

[[gnu::constructor]] void enter_before_main(int, char**, char** environment) {
    cell::cell_options options{.serve_break = true, .native_children = true};
    if (const char* wanted = variable(environment, "XOS_MODE");
        wanted && *wanted && !parse_mode(wanted, options.wanted)) {
        give_up("XOS_MODE is none of auto, ring0, ring3, pvm", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_MEM");
        wanted && *wanted && !parse_bytes(wanted, options.process_arena)) {
        give_up("XOS_MEM is no number of bytes", "write 0, or a number with K, M or G behind it",
                0);
    }
    if (const char* wanted = variable(environment, "XOS_PAGER");
        wanted && *wanted && !parse_pager(wanted, options)) {
        give_up("XOS_PAGER is none of huge, demand, populate, window[:PAGES]", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_TRANSPORT");
        wanted && *wanted && !parse_transport(wanted, options.transport)) {
        give_up("XOS_TRANSPORT is none of auto, exit, module", "", 0);
    }
    const char* quiet = variable(environment, "XOS_QUIET");
    if (!is_off(quiet) && !same(quiet, "1")) give_up("XOS_QUIET is neither 0 nor 1", "", 0);
    the_cell.quiet = !is_off(quiet);
    const char* trace = variable(environment, "XOS_TRACE");
    // The module would answer calls that nobody sees.
    if (!is_off(trace)) options.transport = transport::exit;
    if (auto failed = api::start_runtime(options); !failed.ok()) {
        const auto text = cell::text_of(failed);
        give_up(text.what, text.advice, failed.error);
    }
    // Programs close their standard error before they end; what libxos has to say goes to a copy.
    const long copy = base::raw_syscall(__NR_fcntl, 2, F_DUPFD_CLOEXEC, 10);
    the_cell.report_fd = copy < 0 ? -1 : the_cell.descriptors.adopt(static_cast<int>(copy));
    choose_statistics(variable(environment, "XOS_STATS"));
    choose_trace(trace);
    api::give_up_rseq();
    if (auto failed = cell::enter_guest(); !failed.ok()) {
        const auto text = cell::text_of(failed);
        give_up(text.what, text.advice, failed.error);
    }
}

}  // namespace
