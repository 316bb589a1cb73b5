// xos syscalls: what becomes of each system call in a cell. docs/syscalls.md is its output.
#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string_view>

#include "libxos/syscall/table.hpp"
#include "tools/xos/commands.hpp"
#include "tools/xos/syscall_notes.hpp"

namespace module_calls {
using u16 = std::uint16_t;
#include "kmod/xos_calls.h"
}  // namespace module_calls

namespace xos::tool {

namespace {

using syscall::call_facts;
using syscall::handling;

bool made_by_module(unsigned number, const call_facts& call) {
    return !is_own(call.handling) && std::ranges::find(module_calls::xos_allowed, number) !=
                                         std::end(module_calls::xos_allowed);
}

/// In the order of `handling`.
constexpr std::array<std::string_view, 5> status_words = {"Linux", "libxos", "inside or Linux",
                                                          "inside or libxos", "refused"};

std::string_view status_of(const call_facts& call) {
    return status_words.at(static_cast<unsigned>(call.handling));
}

template <class F>
void for_each_call(F&& f) {
    for (unsigned number = 0; number < syscall::table_size; number++) {
        if (const call_facts& call = syscall::lookup(number); !call.name.empty()) f(number, call);
    }
}

std::array<unsigned, 5> count_by_status() {
    std::array<unsigned, 5> counts{};
    for_each_call([&](unsigned, const call_facts& call) {
        counts.at(static_cast<unsigned>(call.handling))++;
    });
    return counts;
}

constexpr std::string_view introduction = R"(# System calls

<!-- Written by `xos syscalls --markdown`; a test compares. The facts are in libxos/syscall/table.def. -->

Every system call of x86-64 up to those of Linux 6.12, and what becomes of it when a program in a cell makes it.

| status | who carries the call out | path in `--stats` and `--trace` |
|---|---|---|
| Linux | Linux, with the program's arguments, as a system call of the same thread | `exit`; `module` where the column says so and the kernel module is loaded |
| libxos | libxos in host mode, because the call touches what it owns; most end in a call to Linux with other arguments | `emulated` |
| inside or Linux, inside or libxos | libxos inside the guest, without an exit, where the memory is what libxos manages ([memory.md](memory.md)) or the answer is known ([below](#calls-that-never-leave)); else as above | `local`; else as above |
| refused | nobody: its effect could not reach the guest. The call fails, and one line on standard error says so ([run.md](run.md)) | `emulated` |

A number that is not listed goes to Linux, too, which answers ENOSYS; so do those of the x32 interface. The 32-bit
interface (`int $0x80`) works by way of an exception that Linux resolves, slowly, and is neither counted nor logged.
Whether Linux knows a call depends on its version: this table says what libxos does, not what the kernel below it can.

)";

constexpr std::string_view calls_that_never_leave = R"(
## Calls that never leave

The guest answers these calls without an exit as soon as a thread has asked Linux and the answer cannot change. The
answers lie in the vCPU's area, one set for each thread. Nothing is known when a thread begins, enters, or is the child of
a fork, vfork or clone. The first answer is therefore always Linux's own, to the thread's own call, and a filter (seccomp)
under which the program was started has had its say.

| call | known after | why nobody can tell | forgotten |
|---|---|---|---|
| getpid, gettid | the first call | Linux gives a process and a thread one id, in the namespace in which they were made, until they end. `unshare` and `setns` of a namespace of processes concern children only. | never |
| getuid, geteuid, getgid, getegid | the second call, in the first user namespace | Linux keeps credentials for each thread, and only the thread's own calls change them. In the first user namespace every id is shown as it is. | by `setuid`, `setgid`, `setreuid`, `setregid`, `setresuid`, `setresgid`, `unshare` and `setns` of this thread, whether they succeed or not; by an instruction that Linux executes (an `INT 80h` may be any call); by a `host_call()` |

* In another user namespace ids always come from Linux: until its map is written, an id is shown as the overflow id, and
  another process may write the map. The link `/proc/thread-self/ns/user` tells which namespace it is. Where it
  cannot be read, nothing is remembered.
* The calls that change credentials are carried out by libxos for this reason alone, so that none of them goes past it by
  the kernel module. The C library changes the ids of all threads by a signal, whose handler makes the call on each thread.
* A program that installs a filter (seccomp) inside gets no answers from the guest from then on, in any thread, nor do its
  children: a filter has its say about each call.
* `xos::answer_locally()` may give another answer to any of these calls. Null brings libxos's own back.
* With `--trace` they are logged like every call, and leave the guest for that.

These calls look as simple, and always go to Linux:

* `getppid` answers something else as soon as the parent has ended.
* `uname` answers something else when anybody has set the host's name.
* `sched_yield` has to reach Linux's scheduler; that is what it is for.
* `clock_gettime`, `gettimeofday` and `time` are answered by the vDSO without a system call. A program that makes the call
  nevertheless (with a clock that the vDSO leaves to Linux, or under a vDSO that has been switched off) wants Linux's.
* `getcpu`: the guest's number of the processor may be out of date ([differences.md](differences.md)), the call's is right.
* `getresuid`, `getresgid`, `sigaltstack` and a query by `rt_sigprocmask` store their answer in the program's memory.
  Code on the kernel side of the guest cannot fail with EFAULT there as Linux does, because a fault of its own ends the
  cell.
* `rt_sigprocmask` that leaves the mask as it is reads the program's memory, too, and is rare: bash makes 35 such calls
  while it starts three programs, and 7 of them neither change the mask nor are the first of their process.
)";

void print_markdown() {
    fmt::print("{}", introduction);
    const auto counts = count_by_status();
    for (std::size_t i = 0; i < counts.size(); i++)
        fmt::print("{}{}: {}", i ? ", " : "", status_words.at(i), counts.at(i));
    fmt::print(".\n\n| number | call | status | module | notes |\n|---|---|---|---|---|\n");
    for_each_call([](unsigned number, const call_facts& call) {
        fmt::print("| {} | {} | {} | {} | {} |\n", number, call.name, status_of(call),
                   made_by_module(number, call) ? "yes" : "", note_on(call.name));
    });
    fmt::print("{}", calls_that_never_leave);
}

void print_text() {
    for_each_call([](unsigned number, const call_facts& call) {
        fmt::print("{:>3}  {:<24}{:<18}{}\n", number, call.name, status_of(call),
                   made_by_module(number, call) ? "module" : "");
    });
}

}  // namespace

void add_syscalls(CLI::App& app, command_result& result) {
    auto markdown = std::make_shared<bool>(false);
    CLI::App* command =
        app.add_subcommand("syscalls", "Say what becomes of each system call in a cell");
    command->add_flag("--markdown", *markdown, "As docs/syscalls.md has it, with notes");
    command->callback([markdown, &result] {
        *markdown ? print_markdown() : print_text();
        result.status = status_ok;
    });
}

}  // namespace xos::tool
