#include "libxos/api/stats_text.hpp"
#include "libxos/base/text.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/syscall/table.hpp"

namespace xos::api {

namespace {

using cell::the_cell;

constexpr const char* exit_names[] = {"leave",     "system call", "trap", "poll",
                                      "host call", "kernel call", "null", "signal",
                                      "refused",   "privileged",  "other"};
static_assert(sizeof exit_names / sizeof *exit_names == static_cast<unsigned>(exit_kind::count));
constexpr const char* path_names[] = {"exit", "emulated", "local"};

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

}  // namespace

void collect(statistics& s) {
    for (unsigned i = 0; i < the_cell.context_count; i++) {
        const cell::context& c = the_cell.context_at(i);
        s.entries += c.entries;
        s.runs += c.runs;
        s.hops += c.hops;
        s.signals += c.signals;
        for (unsigned k = 0; k < s.exits.size(); k++) s.exits[k] += c.exits[k];
        for (unsigned n = 0; n < statistics::syscall_numbers; n++) {
            s.syscalls[static_cast<unsigned>(syscall_path::exit)][n] += c.forwarded[n];
            s.syscalls[static_cast<unsigned>(syscall_path::emulated)][n] += c.emulated[n];
            s.syscalls[static_cast<unsigned>(syscall_path::local)][n] +=
                c.kernel_area->local_counts[n];
        }
        for (unsigned v = 0; v < 32; v++) {
            s.exceptions[v] += c.area->exceptions[v];
            if (c.kernel_area != c.area) s.exceptions[v] += c.kernel_area->exceptions[v];
        }
    }
    s.vcpus = the_cell.context_count;
    s.chunks = the_cell.started ? the_cell.space().chunks() : 0;
}

void describe(const statistics& s, sink out, void* to) {
    printer p(out, to);
    line l;
    (l << "xos: process ").dec(static_cast<std::uint64_t>(base::raw_syscall(__NR_getpid)));
    l << ", mode " << cell::mode_name(the_cell.current);
    p.print(l);
    row(p, "entries", s.entries);
    row(p, "KVM_RUN", s.runs);
    row(p, "vCPUs", s.vcpus);
    row(p, "memory chunks", s.chunks);
    row(p, "hops", s.hops);
    row(p, "signal handlers", s.signals);
    l << "xos: exits";
    p.print(l);
    for (unsigned k = 0; k < s.exits.size(); k++) row(p, exit_names[k], s.exits[k]);
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
