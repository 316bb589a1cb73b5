#include "libxos/base/bytes.hpp"
#include "libxos/base/clock.hpp"
#include "libxos/base/log_write.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/syscall/trace.hpp"
#include "libxos/syscall/trace_text.hpp"

namespace xos::syscall {

using base::as_long;
using base::raw_syscall;
using cell::context;
using cell::position;
using cell::the_cell;

namespace {

std::uint64_t cycles_now() {
    return __builtin_ia32_rdtsc();
}

/// Returns a * b / c, where a <= c.
std::uint64_t share(std::uint64_t a, std::uint64_t b, std::uint64_t c) {
    std::uint64_t high, low;
    asm("mulq %3" : "=d"(high), "=a"(low) : "1"(a), "r"(b) : "cc");
    asm("divq %2" : "+a"(low), "+d"(high) : "r"(c) : "cc");
    return low;
}

std::uint64_t nanoseconds_of(std::uint64_t cycles) {
    const std::uint64_t all = cycles_now() - the_cell.trace.cycles;
    if (all == 0) return 0;
    return share(cycles < all ? cycles : all,
                 base::monotonic_nanoseconds() - the_cell.trace.nanoseconds, all);
}

void write_line(const trace_line& line) {
    if (!base::log_write(the_cell.trace.fd, line.data(), line.size())) the_cell.trace.fd = -1;
}

void write_line(trace_line& line, const char* path, std::uint64_t nanoseconds) {
    (line << " <" << path << " ").dec(nanoseconds / 1000) << ".";
    line.dec(nanoseconds / 100 % 10) << "us>\n";
    write_line(line);
}

void write_unfinished_line(trace_line& line, const char* path) {
    line << " <" << path << ">\n";
    write_line(line);
}

bool never_returns(std::uint64_t number, const std::uint64_t* arguments) {
    switch (number) {
        case __NR_exit:
        case __NR_exit_group:
            return true;
        case __NR_execve:
        case __NR_execveat:
            return exec_is_likely(number, arguments);
        default:
            return false;
    }
}

}  // namespace

void trace_call(context& c, void (*make)(context&)) {
    const arch::guest_area& area = *c.kernel_area;
    if (static_cast<std::uint32_t>(area.number) == XOS_NR_VECTOR) return make(c);
    std::uint64_t arguments[6];
    base::copy_bytes(arguments, area.arguments, sizeof arguments);
    const traced_call call{area.number, arguments};
    const char* path = emulation_of(call.number) ? "emulated" : "exit";
    trace_line line;
    line.dec(c.thread.id) << " ";
    const unsigned next = begin_call(line, call);
    if (never_returns(call.number, arguments)) {
        trace_line now = line;
        end_call_without_result(now, call, next);
        write_unfinished_line(now, path);
    }
    const std::uint64_t began = cycles_now();
    make(c);
    const std::uint64_t took = cycles_now() - began;
    if (c.stop.where == position::system_call) {
        end_call(line, call, next, static_cast<long>(area.result));
    } else if (call.number == __NR_rt_sigreturn && c.stop.where != position::taken_back) {
        end_call(line, call, next, static_cast<long>(c.cpu.read_registers().rax));
    } else {
        return;  // taken back, or in the child of a fork
    }
    write_line(line, path, nanoseconds_of(took));
}

long trace_one_of_vector(context& c, const std::uint64_t* call,
                         long (*make)(context&, const std::uint64_t*)) {
    const traced_call traced{call[0], call + 1};
    trace_line line;
    line.dec(c.thread.id) << " ";
    const unsigned next = begin_call(line, traced);
    const std::uint64_t began = cycles_now();
    const long result = make(c, call);
    const std::uint64_t took = cycles_now() - began;
    if (c.stop.where == position::taken_back) return result;
    end_call(line, traced, next, result);
    write_line(line, "vector", nanoseconds_of(took));
    return result;
}

void trace_local(const local_record& call) {
    const traced_call traced{call.number, call.arguments};
    trace_line line;
    line.dec(static_cast<std::uint64_t>(raw_syscall(__NR_gettid))) << " ";
    const unsigned next = begin_call(line, traced);
    end_call(line, traced, next, call.result);
    write_line(line, "local", nanoseconds_of(call.ended - call.began));
}

void start_trace(int fd) {
    the_cell.trace = {fd, cycles_now(), base::monotonic_nanoseconds()};
    for (unsigned n = 0; n < table_size; n++) {
        // A call whose entry cannot log leaves the guest, where every call is seen.
        xos_local_calls[n] = logging_entry(xos_local_calls[n]);
    }
}

}  // namespace xos::syscall
