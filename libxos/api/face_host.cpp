// Reads the environment variables in which `xos run` passes its options; docs/run.md lists them.
// program/policy.hpp handles the variables for programs that this one executes.
#include <linux/fcntl.h>

#include <xos/residency.hpp>

#include "libxos/api/face.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/api/stats_text.hpp"
#include "libxos/base/log_write.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/strings.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/failure_text.hpp"
#include "libxos/syscall/trace.hpp"

namespace xos::api {

using cell::the_cell;

namespace {

using base::after;
using base::same;
using base::variable;

bool parse_mode(const char* text, mode& m) {
    for (mode candidate : {mode::automatic, mode::ring0, mode::ring3, mode::pvm}) {
        if (!same(text, cell::mode_name(candidate))) continue;
        m = candidate;
        return true;
    }
    return false;
}

/// Accepts digits, followed by K, M or G or nothing.
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

/// The arena that holds their stacks grows with the number of vCPUs.
bool parse_vcpus(const char* text, cell::start_options& options) {
    std::size_t count = 0;
    if (!parse_bytes(text, count) || count == 0 || count > cell::context_pool::limit) return false;
    constexpr std::size_t each = std::size_t{112} << 10;
    if (count > options.max_vcpus) options.system_arena += (count - options.max_vcpus) * each;
    options.max_vcpus = static_cast<unsigned>(count);
    return true;
}

/// Accepts a name, with an optional ":PAGES" after "window".
bool parse_pager(const char* text, cell::start_options& options) {
    constexpr struct {
        const char* name;
        residency value;
    } pagers[] = {{"system", residency::system},
                  {"huge", residency::huge},
                  {"demand", residency::demand},
                  {"populate", residency::populate},
                  {"window", residency::window}};
    for (const auto& pager : pagers) {
        if (!same(text, pager.name)) continue;
        options.process_pager = static_cast<unsigned>(pager.value);
        return true;
    }
    const char* number = after(text, "window:");
    std::size_t pages = 0;
    if (!number || !parse_bytes(number, pages) || pages == 0 || pages > 99999) return false;
    options.process_pager = static_cast<unsigned>(residency::window);
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

/// Unset, empty and 0 all mean no.
bool is_off(const char* value) {
    return !value || !*value || same(value, "0");
}

/// Opens a file for appending, with a descriptor out of the application's way. Returns -1, after a
/// message, if that fails. The program runs anyway: its rights may differ from those of the user
/// who asked for the file.
int open_log(const char* name, const char* variable_name) {
    constexpr long flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY;
    long fd = base::raw_syscall(__NR_open, base::as_long(name), flags, 0666);
    if (fd >= 0) fd = the_cell.descriptors.adopt(static_cast<int>(fd));
    if (fd >= 0) return static_cast<int>(fd);
    if (the_cell.reports.quiet) return -1;
    base::text<1024> line;
    line << "xos: " << variable_name << ": " << name << " cannot be opened (errno ";
    line.dec(static_cast<unsigned>(-fd)) << "): this process does without it\n";
    line.write_to(the_cell.reports.fd);
    return -1;
}

int statistics_fd = -1;

const statistics& collected() {
    static statistics s;
    s = statistics();
    collect(s);
    return s;
}

void print_statistics(const char*) {
    describe(
        collected(),
        [](const char* text, std::size_t n, void*) {
            base::log_write(the_cell.reports.fd, text, n);
        },
        nullptr);
}

void append_statistics(const char* why) {
    static json_line line;
    line.clear();
    describe_as_json(collected(), collect_memory(), why, line);
    base::log_write(statistics_fd, line.data(), line.size());
}

void choose_statistics(const char* wanted) {
    if (is_off(wanted)) return;
    if (same(wanted, "1")) {
        the_cell.reports.at_exit = print_statistics;
        return;
    }
    const char* file = after(wanted, "json:");
    if (!file || !*file) give_up("XOS_STATS is neither 1 nor json:FILE", "", 0);
    statistics_fd = open_log(file, "XOS_STATS");
    if (statistics_fd >= 0) the_cell.reports.at_exit = append_statistics;
}

void choose_trace(const char* wanted) {
    if (is_off(wanted)) return;
    const int fd = same(wanted, "1") ? the_cell.reports.fd : open_log(wanted, "XOS_TRACE");
    if (fd >= 0) syscall::start_trace(fd);
}

}  // namespace

void give_up(const char* what, const char* advice, int error, int status) {
    base::text<1024> line;
    line << "xos: " << what;
    if (*advice) line << "; " << advice;
    if (error) (line << " (errno ").dec(static_cast<unsigned>(error)) << ")";
    line << "\n";
    line.write_to(2);
    for (;;) base::raw_syscall(__NR_exit_group, status);
}

wishes wishes_from(char** environment) {
    wishes w;
    cell::start_options& options = w.options;
    if (const char* wanted = variable(environment, "XOS_MODE=");
        wanted && *wanted && !parse_mode(wanted, options.wanted)) {
        give_up("XOS_MODE is none of auto, ring0, ring3, pvm", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_MEM=");
        wanted && *wanted && !parse_bytes(wanted, options.process_arena)) {
        give_up("XOS_MEM is no number of bytes", "write 0, or a number with K, M or G behind it",
                0);
    }
    if (const char* wanted = variable(environment, "XOS_VCPUS=");
        wanted && *wanted && !parse_vcpus(wanted, options)) {
        give_up("XOS_VCPUS is no number from 1 to 4096", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_PAGER=");
        wanted && *wanted && !parse_pager(wanted, options)) {
        give_up("XOS_PAGER is none of system, huge, demand, populate, window[:PAGES]", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_TRANSPORT=");
        wanted && *wanted && !parse_transport(wanted, options.transport)) {
        give_up("XOS_TRANSPORT is none of auto, exit, module", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_EVENT_LOOPS="); wanted && *wanted) {
        if (!same(wanted, "batched") && !same(wanted, "plain"))
            give_up("XOS_EVENT_LOOPS is neither batched nor plain", "", 0);
        options.event_loops = same(wanted, "batched");
    }
    if (options.event_loops) {
        if (options.transport == transport::module)
            give_up("XOS_EVENT_LOOPS=batched and XOS_TRANSPORT=module exclude each other",
                    "leave one of them out", 0);
        // The kernel module would make calls that end a turn.
        options.transport = transport::exit;
        options.system_arena += cell::event_loop_bytes;
    }
    using problem = program::policy::problem;
    switch (the_cell.program.policy.read(environment)) {
        case problem::none:
            break;
        case problem::follow:
            give_up("XOS_FOLLOW is none of all, none", "", 0);
        case problem::loader:
            give_up("XOS_LOADER is none of auto, own, preload", "", 0);
        case problem::fallback:
            give_up("XOS_FALLBACK is none of auto, fail, outside", "", 0);
        case problem::size:
            give_up("the variables that begin with XOS_ are too many or too long", "unset some", 0);
    }
    const char* quiet = variable(environment, "XOS_QUIET=");
    if (!is_off(quiet) && !same(quiet, "1")) give_up("XOS_QUIET is neither 0 nor 1", "", 0);
    the_cell.reports.quiet = !is_off(quiet);
    w.statistics = variable(environment, "XOS_STATS=");
    w.trace = variable(environment, "XOS_TRACE=");
    // The kernel module would answer calls that the trace does not see.
    if (!is_off(w.trace)) options.transport = transport::exit;
    return w;
}

bool start_cell(const wishes& w) {
    if (auto failed = start_runtime(w.options); !failed.ok()) {
        const auto text = cell::text_of(failed);
        if (!the_cell.program.policy.falls_back) give_up(text.what, text.advice, failed.error);
        if (the_cell.reports.quiet) return false;
        base::text<1024> line;
        line << "xos: process ";
        line.dec(static_cast<unsigned>(base::raw_syscall(__NR_getpid)))
            << " runs outside, natively: " << text.what;
        (line << " (errno ").dec(static_cast<unsigned>(failed.error)) << ")\n";
        line.write_to(2);
        return false;
    }
    // Programs close their standard error before they end; libxos's messages go to a copy.
    const long copy = base::raw_syscall(__NR_fcntl, 2, F_DUPFD_CLOEXEC, 10);
    the_cell.reports.fd = copy < 0 ? -1 : the_cell.descriptors.adopt(static_cast<int>(copy));
    choose_statistics(w.statistics);
    choose_trace(w.trace);
    return true;
}

void enter_cell() {
    if (auto failed = cell::enter_guest(); !failed.ok()) {
        const auto text = cell::text_of(failed);
        give_up(text.what, text.advice, failed.error);
    }
}

}  // namespace xos::api
