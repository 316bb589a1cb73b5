// The environment, where `xos run` puts what it was told: XOS_MODE (auto, ring0, ring3, pvm),
// XOS_TRANSPORT (auto, exit, module), XOS_MEM (bytes of anonymous memory to serve inside),
// XOS_PAGER (huge, demand, populate), XOS_STATS (1: print statistics when the process ends or
// execs). What concerns the programs that this one executes is in program/policy.hpp.
#include <linux/fcntl.h>

#include "libxos/api/face.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/api/stats_text.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/failure_text.hpp"
#include "libxos/program/strings.hpp"

namespace xos::api {

using cell::the_cell;

namespace {

using program::same;

const char* variable(char** environment, const char* name) {
    for (; *environment; environment++) {
        const char *entry = *environment, *wanted = name;
        while (*wanted && *entry == *wanted) entry++, wanted++;
        if (!*wanted && *entry == '=') return entry + 1;
    }
    return nullptr;
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

bool parse_pager(const char* text, unsigned& pager) {
    constexpr const char* names[] = {"huge", "demand", "populate"};
    for (unsigned i = 0; i < 3; i++) {
        if (!same(text, names[i])) continue;
        pager = i;
        return true;
    }
    return false;
}

bool parse_transport(const char* text, transport& t) {
    for (transport candidate : {transport::automatic, transport::exit, transport::module}) {
        if (!same(text, cell::transport_name(candidate))) continue;
        t = candidate;
        return true;
    }
    return false;
}

void print_statistics(const char*) {
    static statistics s;
    s = statistics();
    collect(s);
    describe(
        s,
        [](const char* text, std::size_t n, void*) {
            base::raw_syscall(__NR_write, the_cell.report_fd, base::as_long(text),
                              static_cast<long>(n));
        },
        nullptr);
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

cell::cell_options options_from(char** environment) {
    cell::cell_options options;
    if (const char* wanted = variable(environment, "XOS_MODE");
        wanted && !parse_mode(wanted, options.wanted)) {
        give_up("XOS_MODE is none of auto, ring0, ring3, pvm", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_MEM");
        wanted && !parse_bytes(wanted, options.process_arena)) {
        give_up("XOS_MEM is no number of bytes", "write 0, or a number with K, M or G behind it",
                0);
    }
    if (const char* wanted = variable(environment, "XOS_PAGER");
        wanted && !parse_pager(wanted, options.process_pager)) {
        give_up("XOS_PAGER is none of huge, demand, populate", "", 0);
    }
    if (const char* wanted = variable(environment, "XOS_TRANSPORT");
        wanted && !parse_transport(wanted, options.transport)) {
        give_up("XOS_TRANSPORT is none of auto, exit, module", "", 0);
    }
    using problem = program::policy::problem;
    switch (the_cell.exec.read(environment)) {
        case problem::none:
            break;
        case problem::follow:
            give_up("XOS_FOLLOW is none of all, none", "", 0);
        case problem::loader:
            give_up("XOS_LOADER is none of auto, own, preload", "", 0);
        case problem::size:
            give_up("the variables that begin with XOS_ are too many or too long", "unset some", 0);
    }
    if (const char* wanted = variable(environment, "XOS_STATS"); wanted && same(wanted, "1")) {
        the_cell.at_exit = print_statistics;
    }
    return options;
}

void start_cell(const cell::cell_options& options) {
    if (auto failed = start_runtime(options); !failed.ok()) {
        const auto text = cell::text_of(failed);
        give_up(text.what, text.advice, failed.error);
    }
    // Programs close their standard error before they end; what libxos has to say goes to a copy.
    const long copy = base::raw_syscall(__NR_fcntl, 2, F_DUPFD_CLOEXEC, 10);
    if (copy >= 0) {
        const int own = the_cell.descriptors.adopt(static_cast<int>(copy));
        if (own >= 0) the_cell.report_fd = own;
    }
}

void enter_cell() {
    if (auto failed = cell::enter_guest(); !failed.ok()) {
        const auto text = cell::text_of(failed);
        give_up(text.what, text.advice, failed.error);
    }
}

}  // namespace xos::api
