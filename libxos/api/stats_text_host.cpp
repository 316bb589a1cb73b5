#include "libxos/api/stats_text.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/syscall/table.hpp"
#include "libxos/vm/arenas/arena.hpp"

namespace xos::api {

namespace {

using cell::the_cell;

constexpr const char* punt_names[] = {"not made by it", "watched",   "signal pending",
                                      "gate closed",    "bad frame", "unknown vCPU",
                                      "to look at"};
static_assert(sizeof punt_names / sizeof *punt_names == XOS_PUNT_COUNT);
static_assert(static_cast<unsigned>(statistics::punt::count) == XOS_PUNT_COUNT);
static_assert(statistics::syscall_numbers == XOS_CALLS);

using line = base::text<256>;

class printer {
  public:
    printer(sink out, void* to) : out_(out), to_(to) {}
    void print(line& l) {
        l << "\n";
        out_(l.data(), l.size(), to_);
        l = line();
    }

  private:
    sink out_;
    void* to_;
};

void pad(line& l, std::size_t to) {
    while (l.size() < to) l << " ";
}

void row(printer& p, const char* what, std::uint64_t value) {
    if (!value) return;
    line l;
    l << "xos:   " << what;
    pad(l, 32);
    l.dec(value);
    p.print(l);
}

void system_calls(printer& p, const statistics& s) {
    line l;
    l << "xos: system calls";
    pad(l, 32);
    l << "calls   path";
    p.print(l);
    for (unsigned n = 0; n < statistics::syscall_numbers; n++) {
        for (unsigned path = 0; path < static_cast<unsigned>(syscall_path::count); path++) {
            const std::uint64_t calls = s.syscalls[path][n];
            if (!calls) continue;
            l << "xos:   ";
            const auto& entry = syscall::lookup(n);
            if (entry.name.empty())
                (l << "#").dec(n);
            else
                l << entry.name.data();
            pad(l, 32);
            l.dec(calls);
            pad(l, 40);
            l << path_names[path];
            p.print(l);
        }
    }
}

void module_rows(printer& p, const statistics& s) {
    if (!the_cell.calls.module.attached()) return;
    line l;
    l << "xos: kernel module";
    p.print(l);
    row(p, "vectors", s.vectors);
    row(p, "interrupted", s.interrupted);
    for (unsigned k = 0; k < s.punts.size(); k++) row(p, punt_names[k], s.punts[k]);
}

}  // namespace

void collect_module(statistics& s) {
    xos_statistics m;
    if (!the_cell.calls.module.read_statistics(m)) return;
    for (unsigned n = 0; n < XOS_CALLS; n++) {
        s.syscalls[static_cast<unsigned>(syscall_path::module)][n] += m.calls[n];
    }
    for (unsigned k = 0; k < XOS_PUNT_COUNT; k++) s.punts[k] += m.punted[k];
    s.vectors += m.vectors;
    s.interrupted += m.interrupted;
}

void collect(statistics& s) {
    for (unsigned i = 0; i < the_cell.contexts.count; i++) {
        const cell::context& c = the_cell.context_at(i);
        s.entries += c.statistics.entries;
        s.runs += c.statistics.runs;
        s.hops += c.statistics.hops;
        s.signals += c.statistics.signals;
        s.vector_exits += c.statistics.vector_exits;
        s.vector_calls += c.statistics.vector_calls;
        for (unsigned k = 0; k < s.exits.size(); k++) s.exits[k] += c.statistics.exits[k];
        for (unsigned n = 0; n < statistics::syscall_numbers; n++) {
            s.syscalls[static_cast<unsigned>(syscall_path::exit)][n] += c.statistics.forwarded[n];
            s.syscalls[static_cast<unsigned>(syscall_path::emulated)][n] +=
                c.statistics.emulated[n];
            s.syscalls[static_cast<unsigned>(syscall_path::local)][n] +=
                c.kernel_area->local_counts[n];
        }
        for (unsigned v = 0; v < 32; v++) {
            s.exceptions[v] += c.area->exceptions[v];
            if (c.kernel_area != c.area) s.exceptions[v] += c.kernel_area->exceptions[v];
        }
    }
    collect_module(s);
    s.vcpus = the_cell.contexts.count;
    s.chunks = the_cell.started ? the_cell.space().chunks() : 0;
}

memory_inside collect_memory() {
    const vm::arena& a = vm::the_process_arena;
    if (!a.exists()) return {};
    return {a.length(), a.grown(), a.used()};
}

void describe(const statistics& s, sink out, void* to) {
    printer p(out, to);
    line l;
    (l << "xos: process ").dec(static_cast<std::uint64_t>(base::raw_syscall(__NR_getpid)));
    l << ", mode " << cell::mode_name(the_cell.current) << ", transport "
      << cell::transport_name(the_cell.calls.way.name);
    p.print(l);
    row(p, "entries", s.entries);
    row(p, "KVM_RUN", s.runs);
    row(p, "vCPUs", s.vcpus);
    row(p, "memory chunks", s.chunks);
    row(p, "hops", s.hops);
    row(p, "signal handlers", s.signals);
    row(p, "programs started outside", the_cell.program.outside_starts);
    l << "xos: exits";
    p.print(l);
    for (unsigned k = 0; k < s.exits.size(); k++) {
        base::text<32> name;
        for (const char* c = exit_names[k]; *c; c++) name.append(*c == '_' ? " " : c, 1);
        row(p, name.terminated(), s.exits[k]);
    }
    row(p, "of them with a vector", s.vector_exits);
    row(p, "calls in those", s.vector_calls);
    module_rows(p, s);
    l << "xos: exceptions in the guest, by vector";
    p.print(l);
    for (unsigned v = 0; v < 32; v++) {
        if (s.exceptions[v]) {
            l << "xos:   ";
            l.dec(v);
            pad(l, 32);
            l.dec(s.exceptions[v]);
            p.print(l);
        }
    }
    system_calls(p, s);
}

}  // namespace xos::api
