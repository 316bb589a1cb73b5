// Calls whose effect cannot reach the guest: the program gets the answer of a Linux that lacks
// them. A line on standard error says so, because it would be hard to find out otherwise.
#include "libxos/base/errno.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/failure_text.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::syscall {

using cell::the_cell;

namespace {

constexpr unsigned word_bits = 64;

/// Whether this is the first time.
bool note(unsigned number) {
    const std::uint64_t bit = std::uint64_t{1} << (number % word_bits);
    return !(
        __atomic_fetch_or(&the_cell.reports.refused[number / word_bits], bit, __ATOMIC_RELAXED) &
        bit);
}

const char* reason_for(unsigned number) {
    return number == __NR_modify_ldt ? "the guest has descriptor tables of its own"
                                     : "ports of the machine do not reach into the guest";
}

}  // namespace

void report_refusal(unsigned number, const char* call, const char* why) {
    if (the_cell.reports.quiet || !note(number)) return;
    base::text<512> line;
    (line << "xos: process ").dec(static_cast<std::uint64_t>(base::raw_syscall(__NR_getpid)));
    line << ": " << call << " cannot be supported in a cell: " << why
         << "; it fails (XOS_QUIET=1 leaves this line out)\n";
    line.write_to(the_cell.reports.fd);
}

void report_thread_refusal(base::outcome failure) {
    static bool reported = false;
    if (the_cell.reports.quiet || __atomic_exchange_n(&reported, true, __ATOMIC_RELAXED)) return;
    const cell::failure_text text = cell::text_of(failure);
    base::text<512> line;
    (line << "xos: process ").dec(static_cast<std::uint64_t>(base::raw_syscall(__NR_getpid)));
    line << ": a thread cannot be created: ";
    if (failure.where == base::step::too_many_vcpus && the_cell.program.policy.governs) {
        (line << "all ").dec(the_cell.contexts.most) << " vCPUs are in use; raise --vcpus";
    } else {
        line << text.what << "; " << text.advice;
    }
    line << " (XOS_QUIET=1 leaves this line out)\n";
    line.write_to(the_cell.reports.fd);
}

long refused(cell::context& c, const std::uint64_t*) {
    const auto number = static_cast<unsigned>(c.kernel_area->number);
    report_refusal(number, lookup(number).name.data(), reason_for(number));
    return -base::error::nosys;
}

}  // namespace xos::syscall
