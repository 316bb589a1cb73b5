// Prints the report of a cell that cannot continue.
#include "libxos/base/bytes.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/cell/stubs.hpp"

namespace xos::cell {

namespace {

using report = base::text<4096>;

void registers(report& out, const arch::general_registers& r) {
    const struct {
        const char* name;
        std::uint64_t value;
    } all[] = {{"rip", r.rip}, {"rsp", r.rsp}, {"rflags", r.rflags}, {"rax", r.rax}, {"rbx", r.rbx},
               {"rcx", r.rcx}, {"rdx", r.rdx}, {"rsi", r.rsi},       {"rdi", r.rdi}, {"rbp", r.rbp},
               {"r8", r.r8},   {"r9", r.r9},   {"r10", r.r10},       {"r11", r.r11}, {"r12", r.r12},
               {"r13", r.r13}, {"r14", r.r14}, {"r15", r.r15}};
    unsigned column = 0;
    for (const auto& one : all) {
        out << (column % 4 ? "  " : "\nxos:   ") << one.name << " ";
        out.hex(one.value);
        column++;
    }
}

void vcpu_state(report& out, context& c) {
    const auto s = c.cpu.read_special();
    out << "\nxos: vCPU ";
    out.dec(c.id) << ", thread ";
    out.dec(c.thread.id) << ", CPL ";
    out.dec(s.cs.selector & 3u) << ", cr2 ";
    out.hex(s.cr2) << ", cr3 ";
    out.hex(s.cr3);
    registers(out, c.cpu.read_registers());
    out << "\nxos: last exits, newest first (reason/port result detail):";
    for (unsigned i = 0; i < 8 && i < c.recent.next; i++) {
        const last_exit& e = c.recent.exits[(c.recent.next - 1 - i) % 8];
        out << "\nxos:   ";
        out.dec(e.reason) << "/";
        out.hex(e.port) << " ";
        out.signed_dec(e.result) << " ";
        out.dec(e.detail);
    }
}

}  // namespace

namespace {

void opening(report& out, const char* reason) {
    out << "xos: this cell cannot go on: " << reason;
}

void surroundings(report& out, context* c) {
    (out << "\nxos: process ").dec(static_cast<std::uint64_t>(base::raw_syscall(__NR_getpid)));
    out << ", mode " << mode_name(the_cell.current) << ", libxos stubs at ";
    out.hex(address_of(xos_stubs_begin));
    if (c && c->cpu.exists()) vcpu_state(out, *c);
}

/// Like abort(3): the default action, with the signal unblocked.
[[noreturn]] void end_process(report& out) {
    out << "\n";
    out.write_to(the_cell.reports.fd);
    kernel_sigaction standard{0, 0, 0, 0};
    base::raw_syscall(__NR_rt_sigaction, sig_abort, base::as_long(&standard), 0, 8);
    std::uint64_t none = 0;
    base::raw_syscall(__NR_rt_sigprocmask, 2, base::as_long(&none), 0, 8);
    base::raw_syscall(__NR_tgkill, base::raw_syscall(__NR_getpid), base::raw_syscall(__NR_gettid),
                      sig_abort);
    for (;;) base::raw_syscall(__NR_exit_group, 134);
}

}  // namespace

void die(context* c, const char* reason, std::uint64_t detail) {
    report out;
    opening(out, reason);
    if (detail) (out << ", detail ").hex(detail);
    surroundings(out, c);
    end_process(out);
}

void die_at(context* c, const char* reason, const trap_frame& f) {
    report out;
    opening(out, reason);
    (out << ", vector ").dec(f.vector);
    (out << ", error ").hex(f.error_code);
    (out << ", address ").hex(f.fault_address);
    out << ", interrupted at:";
    registers(out, arch::registers_of(f));
    surroundings(out, c);
    end_process(out);
}

void die_in_host(context* c, int signal, const kernel_siginfo& info, const kernel_ucontext& u) {
    report out;
    opening(out, "fault in host mode, signal ");
    out.dec(static_cast<unsigned>(signal));
    (out << ", address ").hex(info.address());
    out << ", at:";
    registers(out, registers_of(u));
    surroundings(out, c);
    end_process(out);
}

void context::clear_statistics() {
    base::zero_bytes(&statistics, sizeof statistics);
    if (!area) return;
    base::zero_bytes(kernel_area->local_counts, sizeof kernel_area->local_counts);
    base::zero_bytes(area->exceptions, sizeof area->exceptions);
    base::zero_bytes(kernel_area->exceptions, sizeof kernel_area->exceptions);
}

}  // namespace xos::cell
