// A cell that cannot go on: one report, the right signal, no hang. And an application that ends
// itself.
#include <signal.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <system_error>
#include <xos/vm.hpp>

#include "libxos/arch/segments.hpp"
#include "libxos/cell/cell.hpp"
#include "tests/guest/probe.hpp"
#include "tests/guest/support.hpp"

namespace xos::test {

namespace {

using cell::the_cell;

bool has(const ended& e, const char* text) {
    return e.errors.find(text) != std::string::npos;
}

/// Registers and the exits before, whatever the reason.
void check_report(const ended& e) {
    INFO(e.errors);
    CHECK(e.status == "signal 6");
    CHECK(has(e, "xos: this cell cannot go on:"));
    CHECK(has(e, "rip 0x"));
    CHECK(has(e, "last exits"));
    CHECK(e.errors.find("cannot go on") == e.errors.rfind("cannot go on"));
}

/// A page of a view whose guest-physical address belongs to no slot.
gva page_without_memory() {
    const gva view = vm::reserve(page_size);
    const gpa nowhere{std::uint64_t{1} << 35};
    scoped_entry inside;
    must(vm::map(view, nowhere, vm::access::read_write));
    return view;
}

}  // namespace

TEST_CASE("an access to guest-physical memory that nobody has ends the process with a report") {
    const ended e = in_child([] {
        ensure_cell();
        const gva page = page_without_memory();
        enter();
        *reinterpret_cast<volatile int*>(page.value) = 1;
        return 1;
    });
    check_report(e);
    CHECK(has(e, "KVM_EXIT_MMIO"));
}

TEST_CASE("an instruction that KVM cannot emulate ends the process with a report") {
    // A vector access to memory that does not exist would have to be emulated, and is not.
    const ended e = in_child([] {
        ensure_cell();
        const gva page = page_without_memory();
        enter();
        asm volatile("fldt (%0)" : : "r"(page.value) : "memory");
        return 1;
    });
    if (e.status == "signal 11") {
        // At CPL 3 KVM may answer with #UD, and Linux with what it knows of a view.
        // At CPL 3 KVM may answer with #UD, and Linux with what it knows of a view.
        CHECK(cell_mode() != mode::ring0);
        return;
    }
    check_report(e);
    CHECK((has(e, "KVM_EXIT_INTERNAL_ERROR") || has(e, "KVM_EXIT_MMIO")));
}

TEST_CASE("a triple fault ends the process with a report") {
    if (cell_mode() == mode::ring3) return;  // nothing at CPL 3 can cause one: see the next test
    const ended e = in_child([] {
        scoped_entry inside;
        std::memset(reinterpret_cast<void*>(the_cell.guest.interrupt_table.value), 0,
                    32 * sizeof(arch::idt_gate));
        asm volatile("ud2");
        return 1;
    });
    check_report(e);
    CHECK((has(e, "KVM_EXIT_SHUTDOWN") || has(e, "KVM_EXIT_INTERNAL_ERROR")));
}

TEST_CASE("a cell without a memory slot left ends with a report when it needs one") {
    if (cell_mode() != mode::pvm)
        return;  // filling 32,764 slots takes minutes on an emulated machine
    const ended e = in_child([] {
        { scoped_entry once; }  // a VM of this process's own
        const auto page = reinterpret_cast<std::uint64_t>(
            mmap(nullptr, page_size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        gpa at{std::uint64_t{1} << 35};
        while (the_cell.machine.add_slot(at, hva{page}, page_size).ok()) at = at + page_size;
        constexpr std::size_t distant = std::size_t{1} << 30;
        auto* fresh =
            static_cast<volatile char*>(mmap(nullptr, distant, PROT_READ | PROT_WRITE,
                                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
        scoped_entry inside;
        fresh[distant / 2] = 1;
        return 1;
    });
    check_report(e);
    CHECK(has(e, "no room to make memory visible"));
}

TEST_CASE("views that find no memory for their tables are refused and the cell goes on") {
    ensure_cell();
    unsigned made = 0;
    const auto reserve_all = [&made] {
        for (;;) {
            (void)vm::reserve(large_page_size);
            made++;
        }
    };
    CHECK_THROWS_AS(reserve_all(), std::system_error);
    CHECK(made > 16);
    CHECK(in_cell([] { return getppid() > 0; }));
}

TEST_CASE("in ring3 the application cannot reach page tables and descriptor tables") {
    if (cell_mode() != mode::ring3) return;
    const auto faults = [](std::uint64_t address) {
        const ended e = in_child([address] {
            scoped_entry inside;
            *reinterpret_cast<volatile std::uint64_t*>(address) = 0;
            return 1;
        });
        INFO(e.errors);
        return e.status == "signal 11";
    };
    CHECK(faults(the_cell.guest.interrupt_table.value));
    CHECK(faults(the_cell.arena.begin().value));
}

TEST_CASE("a jump to nowhere ends the process as it does natively") {
    for (const std::uint64_t target :
         {std::uint64_t{8}, std::uint64_t{0x123456789000}, std::uint64_t{0x8000'0000'0000'0000}}) {
        const auto body = [target](bool inside_cell) {
            return [target, inside_cell] {
                if (inside_cell) {
                    ensure_cell();
                    enter();
                }
                reinterpret_cast<void (*)()>(target)();
                return 1;
            };
        };
        CHECK(in_child(body(true)) == in_child(body(false)));
    }
}

namespace {

/// A child sends itself SIGABRT by `number`; what its tracer sees when the signal arrives, and its
/// end.
std::string abort_under_tracer(bool cell, long number) {
    const int child = fork();
    if (child == 0) {
        if (cell) {
            ensure_cell();
            enter();
        }
        const long self = getpid();
        const bool by_group = number == SYS_tgkill;
        ptrace(PTRACE_TRACEME, 0, nullptr, nullptr);
        register long result asm("rax") = number;
        register long second asm("rsi") = by_group ? self : SIGABRT;
        register long third asm("rdx") = SIGABRT;
        asm volatile("lea 1f(%%rip), %%rbx; syscall; 1:"
                     : "+r"(result)
                     : "D"(self), "r"(second), "r"(third)
                     : "rbx", "rcx", "r11", "memory");
        _exit(1);
    }
    std::string seen;
    int status = 0;
    while (waitpid(child, &status, 0) == child && WIFSTOPPED(status)) {
        const int stop = WSTOPSIG(status);
        if (stop == SIGABRT) {
            user_regs_struct r;
            ptrace(PTRACE_GETREGS, child, nullptr, &r);
            seen += r.rip == r.rbx ? "behind the call, " : "elsewhere, ";
            seen += std::to_string(r.rax) + ", ";
        }
        ptrace(PTRACE_CONT, child, nullptr, stop);
    }
    return seen + describe(status);
}

}  // namespace

TEST_CASE("a process that ends itself ends where the application is") {
    for (const long number : {SYS_kill, SYS_tkill, SYS_tgkill}) {
        CAPTURE(number);
        CHECK(abort_under_tracer(false, number) == "behind the call, 0, signal 6");
        CHECK(abort_under_tracer(true, number) == "behind the call, 0, signal 6");
    }
}

}  // namespace xos::test
