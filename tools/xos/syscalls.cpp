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
| inside or Linux, inside or libxos | libxos inside the guest, without an exit, where the memory is what libxos manages ([memory.md](memory.md)); else as above | `local`; else as above |
| refused | nobody: its effect could not reach the guest. The call fails, and one line on standard error says so ([run.md](run.md)) | `emulated` |

A number that is not listed goes to Linux, too, which answers ENOSYS; so do those of the x32 interface. The 32-bit
interface (`int $0x80`) works by way of an exception that Linux resolves, slowly, and is neither counted nor logged.
Whether Linux knows a call depends on its version: this table says what libxos does, not what the kernel below it can.

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
