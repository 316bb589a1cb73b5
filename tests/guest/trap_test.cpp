// Fault handlers of the application's own.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstring>
#include <xos/stats.hpp>
#include <xos/trap.hpp>
#include <xos/vm.hpp>

#include "tests/guest/machine_state.hpp"
#include "tests/guest/probe.hpp"
#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

gva view;
std::atomic<unsigned> calls{0};
std::string order;

/// Gives the page a fresh frame. Two threads may fault on one page: the second finds it mapped.
verdict map_fresh(trap_frame& f, void*) {
    calls++;
    const gva page = page_fault_of(f).address.align_down(page_size);
    const gpa frame = vm::allocate_frame();
    if (frame == gpa{0}) return verdict::pass;
    if (vm::map(page, frame, vm::access::read_write) != vm::map_result::ok) vm::free_frame(frame);
    return verdict::resume;
}

verdict skip_ud2(trap_frame& f, void*) {
    calls++;
    f.rip += 2;
    return verdict::resume;
}

verdict open_page(trap_frame& f, void*) {
    calls++;
    mprotect(reinterpret_cast<void*>(f.fault_address & ~4095ul), 4096, PROT_READ | PROT_WRITE);
    return verdict::resume;
}

char* closed_pages(std::size_t n) {
    return static_cast<char*>(
        mmap(nullptr, n * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
}

gva address_of(const volatile void* p) {
    return gva{reinterpret_cast<std::uint64_t>(p)};
}
volatile char* at(gva a) {
    return reinterpret_cast<volatile char*>(a.value);
}

void reserve_view(std::size_t bytes = 1 << 20) {
    ensure_cell();
    view = vm::reserve(bytes);
}

/// Fills the red zone below RSP, makes `instruction` fault, counts what has changed there.
#define RED_ZONE_AROUND(instruction, address)                                   \
    ([](std::uint64_t a) {                                                      \
        std::uint64_t changed = 0;                                              \
        asm volatile(                                                           \
            "subq $256, %%rsp\n leaq 8f(%%rip), %%rcx\n"                        \
            "movl $16, %%ecx\n"                                                 \
            "1: movq %%rcx, %%rdx\n negq %%rdx\n movq %%rcx, (%%rsp,%%rdx,8)\n" \
            "decl %%ecx\n jnz 1b\n" instruction                                 \
            "\n movl $16, %%ecx\n"                                              \
            "2: movq %%rcx, %%rdx\n negq %%rdx\n cmpq %%rcx, (%%rsp,%%rdx,8)\n" \
            "je 3f\n incq %0\n 3: decl %%ecx\n jnz 2b\n 8: addq $256, %%rsp"    \
            : "+r"(changed)                                                     \
            : "a"(a)                                                            \
            : "rcx", "rdx", "memory", "cc");                                    \
        return changed;                                                         \
    }(address))

struct vector_case {
    const char* name;
    exception which;
    void (*raise)();
    unsigned length;  ///< of the instruction; 0 for a trap, which is reported behind it
};

const vector_case vector_cases[] = {
    {"divide", exception::divide,
     [] {
         asm volatile("xorl %%ecx, %%ecx\n xorl %%edx, %%edx\n movl $1, %%eax\n divl %%ecx" ::
                          : "eax", "ecx", "edx");
     },
     2},
    {"breakpoint", exception::breakpoint, [] { asm volatile("int3"); }, 0},
    {"invalid opcode", exception::invalid_opcode, [] { asm volatile("ud2"); }, 2},
    {"general protection", exception::general_protection,
     [] {
         asm volatile("movabsq $0x8000000000000000, %%rcx\n movb (%%rcx), %%al" ::: "rax", "rcx");
     },
     2},
    {"stack segment", exception::stack_segment,
     [] {
         asm volatile(
             "movq %%rbp, %%rcx\n movabsq $0x8000000000000000, %%rbp\n movb (%%rbp), %%al\n movq "
             "%%rcx, %%rbp" ::
                 : "rax", "rcx");
     },
     3},
    {"simd", exception::simd,
     [] {
         const unsigned open = 0x1f80 & ~0x200u, closed = 0x1f80;
         asm volatile(
             "ldmxcsr %0\n xorps %%xmm0, %%xmm0\n movl $0x3f800000, %%eax\n movd %%eax, %%xmm1\n "
             "divss %%xmm0, %%xmm1\n ldmxcsr %1" ::"m"(open),
             "m"(closed)
             : "eax", "xmm0", "xmm1");
     },
     4},
    {"x87", exception::floating_point,
     [] {
         const std::uint16_t open = 0x037b;
         asm volatile("fldcw %0\n fldz\n fld1\n fdiv %%st(1), %%st\n fwait\n fninit" ::"m"(open));
     },
     1},
    {"debug", exception::debug,
     [] {
         asm volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n nop\n nop" ::: "memory", "cc");
     },
     0},
};

}  // namespace

TEST_CASE("every exception reaches its handler with its vector and address") {
    for (const auto& one : vector_cases) {
        static unsigned length, seen_vector;
        calls = 0;
        length = one.length;
        const auto guard = on_exception(
            one.which,
            [](trap_frame& f, void*) {
                calls++;
                seen_vector = static_cast<unsigned>(f.vector);
                f.rip += length;
                f.rflags &= ~0x100ul;
                if (f.vector == static_cast<unsigned>(exception::floating_point))
                    asm volatile("fnclex");
                return verdict::resume;
            },
            nullptr, handler_registers::general_only);
        // QEMU reports a non-canonical address as #GP also where the processor says #SS.
        trap_registration other;
        if (one.which == exception::stack_segment) {
            other = on_exception(
                exception::general_protection,
                [](trap_frame& f, void*) {
                    calls++;
                    seen_vector = static_cast<unsigned>(exception::stack_segment);
                    f.rip += length;
                    return verdict::resume;
                },
                nullptr, handler_registers::general_only);
        }
        in_cell([&] { return one.raise(), 0; });
        CAPTURE(one.name);
        // QEMU does not emulate unmasked SSE exceptions.
        if (one.which == exception::simd && calls == 0) continue;
        CHECK(calls == 1);
        CHECK(seen_vector == static_cast<unsigned>(one.which));
    }
}

TEST_CASE("an int3 is reported behind itself") {
    static std::uint64_t seen, expected;
    const auto guard = on_exception(exception::breakpoint, [](trap_frame& f, void*) {
        seen = f.rip;
        return verdict::resume;
    });
    in_cell([] {
        asm volatile("leaq 1f(%%rip), %%rax\n movq %%rax, %0\n int3\n 1:"
                     : "=m"(expected)
                     :
                     : "rax");
        return 0;
    });
    CHECK(seen == expected);
}

TEST_CASE("privileged instructions at CPL 3 reach the handler of general protection") {
    if (cell_mode() == mode::ring0) return;
    const auto guard = on_exception(exception::general_protection, [](trap_frame& f, void*) {
        calls++;
        f.rip += static_cast<std::uint64_t>(
            *reinterpret_cast<const std::uint8_t*>(f.rip) == 0x0f ? 2 : 1);
        return verdict::resume;
    });
    in_cell([] {
        asm volatile("cli\n hlt\n sti\n rdmsr\n clts\n" ::: "eax", "edx");
        return 0;
    });
    CHECK(calls == 5);
}

TEST_CASE("a view is filled from a fault handler") {
    reserve_view();
    const auto guard = on_fault(view, 1 << 20, map_fresh);
    const auto sum = in_cell([] {
        unsigned sum = 0;
        for (unsigned i = 0; i < 256; i++) at(view + i * 4096)[i] = static_cast<char>(i);
        for (unsigned i = 0; i < 256; i++)
            sum += static_cast<unsigned char>(at(view + i * 4096)[i]);
        return sum;
    });
    CHECK(sum == 255 * 128);
    CHECK(calls == 256);
}

TEST_CASE("a frame shows the same bytes in the view and at its host address") {
    reserve_view();
    const gpa frame = vm::allocate_frame();
    auto* data = static_cast<volatile char*>(vm::frame_data(frame));
    data[1] = 'o';
    const std::string seen = in_cell([&] {
        must(vm::map(view, frame, vm::access::read_write));
        at(view)[2] = 'i';
        return std::string{at(view)[1], data[2]};
    });
    CHECK(seen == "oi");
    CHECK(data[2] == 'i');
}

TEST_CASE("Linux refuses a pointer into a view") {
    reserve_view();
    const auto guard = on_fault(view, 4096, map_fresh);
    const auto seen = in_cell([] {
        at(view)[0] = 'x';
        int ends[2];
        if (pipe(ends)) return std::string("no pipe");
        const long r = write(ends[1], reinterpret_cast<void*>(view.value), 1);
        return outcome_of("write", r, errno);
    });
    CHECK(seen == "write=-1 EFAULT");
}

TEST_CASE("a handler opens memory that Linux manages") {
    char* p = closed_pages(8);
    const auto guard = on_fault(address_of(p), 8 * 4096, open_page);
    const std::string text = in_cell([p] {
        p[100] = 'a';
        p[5000] = 'b';
        asm volatile(
            "vpcmpeqb %%xmm1, %%xmm1, %%xmm1\n vinsertf128 $1, %%xmm1, %%ymm1, %%ymm1\n vmovdqu "
            "%%ymm1, (%0)" ::"r"(p + 3 * 4096 - 10)
            : "xmm1", "memory");
        return std::string{p[100], p[5000], p[3 * 4096 - 10], p[3 * 4096 + 21], p[3 * 4096 + 22]};
    });
    CHECK(text == std::string("ab\xff\xff\0", 5));
    CHECK(calls == 4);
}

TEST_CASE("a handler hears of a write to a page that Linux maps read-only") {
    char* p = closed_pages(1);
    mprotect(p, 4096, PROT_READ);
    static page_fault seen;
    const auto guard = on_fault(address_of(p), 4096, [](trap_frame& f, void* a) {
        seen = page_fault_of(f);
        return open_page(f, a);
    });
    const char value = in_cell([p] {
        const char before = *static_cast<volatile char*>(p);
        p[9] = static_cast<char>(before + 3);
        return p[9];
    });
    CHECK(value == 3);
    CHECK(seen.address == address_of(p + 9));
    CHECK(seen.present);
    CHECK(seen.write);
    CHECK_FALSE(seen.fetch);
}

TEST_CASE("page_fault_of tells reads from writes and absence from protection") {
    reserve_view();
    static std::vector<page_fault> seen;
    seen.reserve(8);
    const auto guard = on_fault(view, 1 << 20, [](trap_frame& f, void*) {
        const page_fault fault = page_fault_of(f);
        seen.push_back(fault);
        static gpa frame;
        if (!fault.present) frame = vm::allocate_frame();
        must(vm::map(fault.address.align_down(page_size), frame,
                     fault.present ? vm::access::read_write : vm::access::read));
        return verdict::resume;
    });
    in_cell([] {
        char c = *at(view + 5);
        *at(view + 6) = static_cast<char>(c + 1);
        *at(view + 4096 + 7) = 1;
        return 0;
    });
    const bool user = cell_mode() != mode::ring0;
    REQUIRE(seen.size() == 4);
    const auto is = [&](std::size_t i, std::uint64_t offset, bool present, bool write) {
        CAPTURE(i);
        CHECK(seen[i].address == view + offset);
        CHECK(seen[i].present == present);
        CHECK(seen[i].write == write);
        CHECK(seen[i].user == user);
        CHECK_FALSE(seen[i].fetch);
    };
    is(0, 5, false, false);
    is(1, 6, true, true);
    is(2, 4096 + 7, false, true);
    is(3, 4096 + 7, true, true);
}

TEST_CASE("code may be fetched from a view") {
    reserve_view();
    static std::uint64_t address, rip;
    const auto guard = on_fault(view, 4096, [](trap_frame& f, void* a) {
        address = f.fault_address;
        rip = f.rip;
        const verdict v = map_fresh(f, a);
        at(view + 16)[0] = '\xc3';
        must(vm::protect(view, vm::access::read_execute));
        return v;
    });
    in_cell([] {
        reinterpret_cast<void (*)()>(view.value + 16)();
        return 0;
    });
    CHECK(address == view.value + 16);
    CHECK(rip == view.value + 16);
}

TEST_CASE("several ranges each have their handler and an end") {
    reserve_view();
    static std::vector<char> who;
    who.reserve(8);
    const auto named = [](char name) {
        return std::pair(name, [](trap_frame& f, void* argument) {
            who.push_back(static_cast<char>(reinterpret_cast<std::uintptr_t>(argument)));
            return map_fresh(f, nullptr);
        });
    };
    std::vector<trap_registration> all;
    for (unsigned i : {3u, 0u, 2u, 1u}) {
        const auto [name, handler] = named(static_cast<char>('a' + i));
        all.push_back(on_fault(view + i * 8192, 8192, handler,
                               reinterpret_cast<void*>(std::uintptr_t(name))));
    }
    in_cell([] {
        for (unsigned offset : {0, 8191, 8192, 2 * 8192, 4 * 8192 - 1}) *at(view + offset) = 1;
        return 0;
    });
    CHECK(std::string(who.begin(), who.end()) == "aabcd");
}

TEST_CASE("handlers are asked newest first and those of a range before those of the vector") {
    reserve_view();
    const auto note = [](trap_frame&, void* name) {
        order += static_cast<const char*>(name);
        return verdict::pass;
    };
    static char one[] = "1", two[] = "2", range[] = "r";
    const auto first = on_exception(exception::page_fault, map_fresh);
    const auto second = on_exception(exception::page_fault, note, one);
    const auto third = on_exception(exception::page_fault, note, two);
    const auto ranged = on_fault(view, 4096, note, range);
    in_cell([] {
        *at(view) = 1;
        return 0;
    });
    CHECK(order == "r21");
    CHECK(calls == 1);
}

TEST_CASE("what every handler passes becomes the signal that Linux raises") {
    const auto pass = [](trap_frame&, void*) {
        calls++;
        return verdict::pass;
    };
    static sigjmp_buf back;
    struct sigaction action {};
    action.sa_handler = [](int) { siglongjmp(back, 1); };
    sigaction(SIGILL, &action, nullptr);
    sigaction(SIGSEGV, &action, nullptr);
    char* p = closed_pages(1);
    const auto a = on_exception(exception::invalid_opcode, pass),
               b = on_exception(exception::invalid_opcode, pass);
    const auto c = on_fault(address_of(p), 4096, pass);
    const auto d = on_exception(exception::page_fault, pass);
    const auto caught = in_cell([p] {
        std::vector<unsigned> caught;
        if (!sigsetjmp(back, 1))
            asm volatile("ud2");
        else
            caught.push_back(calls);
        if (!sigsetjmp(back, 1))
            *static_cast<volatile char*>(p) = 1;
        else
            caught.push_back(calls);
        return caught;
    });
    CHECK(caught == std::vector<unsigned>{2, 4});
}

TEST_CASE("a registration ends with its guard") {
    const ended e = in_child([] {
        {
            const auto guard = on_exception(exception::invalid_opcode, skip_ud2);
            in_cell([] {
                asm volatile("ud2");
                return 0;
            });
        }
        if (calls != 1) return 1;
        in_cell([] {
            asm volatile("ud2");
            return 0;
        });
        return 2;
    });
    CHECK(e == ended{"signal 4", ""});
}

TEST_CASE("handlers may be registered and removed inside") {
    const unsigned seen = in_cell([] {
        for (int i = 0; i < 100; i++) {
            const auto guard = on_exception(exception::invalid_opcode, skip_ud2);
            asm volatile("ud2");
        }
        return calls.load();
    });
    CHECK(seen == 100);
}

TEST_CASE("the red zone is untouched") {
    reserve_view();
    char* p = closed_pages(1);
    const auto a = on_exception(exception::invalid_opcode, skip_ud2);
    const auto b = on_fault(view, 4096, map_fresh);
    const auto c = on_fault(address_of(p), 4096, open_page);
    const auto changed = in_cell([p] {
        return std::vector<std::uint64_t>{RED_ZONE_AROUND("ud2", 0),
                                          RED_ZONE_AROUND("movb $1, (%%rax)", view.value),
                                          RED_ZONE_AROUND("movb $1, (%%rax)", address_of(p).value)};
    });
    CHECK(changed == std::vector<std::uint64_t>{0, 0, 0});
    CHECK(calls == 3);
}

TEST_CASE("every register survives a handler that uses all of them") {
    if (!__builtin_cpu_supports("avx")) return;
    reserve_view();
    char* p = closed_pages(2);
    static const auto clobber = [] {
        asm volatile(
            "vxorps %%ymm0,%%ymm0,%%ymm0\n vxorps %%ymm7,%%ymm7,%%ymm7\n vxorps "
            "%%ymm15,%%ymm15,%%ymm15" ::
                : "xmm0", "xmm7", "xmm15");
        std::string text =
            std::to_string(3.5 * static_cast<double>(calls)) + "abcdefghijklmnopqrstuvwxyz";
        if (text.size() > 1000) abort();
    };
    const auto a = on_exception(exception::invalid_opcode, [](trap_frame& f, void*) {
        clobber();
        return skip_ud2(f, nullptr);
    });
    const auto b = on_fault(view, 1 << 20, [](trap_frame& f, void*) {
        clobber();
        return map_fresh(f, nullptr);
    });
    const auto c = on_fault(address_of(p), 8192, [](trap_frame& f, void*) {
        clobber();
        return open_page(f, nullptr);
    });
    const lines differences = in_cell([p] {
        lines all;
        machine_state s = distinct_state();
        all.push_back(difference(s, registers_after(event::ud2, s)));
        for (std::uint64_t target : {view.value + 3, address_of(p).value + 3}) {
            s.gpr[4] = target;
            all.push_back(difference(s, registers_after(event::store_to_rsi, s)));
        }
        s.gpr[4] = address_of(p).value + 4096;
        std::memset(s.ymm[3], 0, 32);  // what the load brings
        all.push_back(difference(s, registers_after(event::load_ymm, s)));
        return all;
    });
    CHECK(differences == lines(4));
    CHECK(calls == 4);
}

TEST_CASE("a handler that uses general registers only needs no others kept") {
    const auto guard = on_exception(
        exception::invalid_opcode,
        [] [[gnu::target("general-regs-only")]] (trap_frame & f, void*) {
            f.rip += 2;
            f.rax = 77;
            return verdict::resume;
        },
        nullptr, handler_registers::general_only);
    const auto seen = in_cell([] {
        machine_state s = distinct_state(), expected = s;
        expected.gpr[0] = 77;
        return difference(expected, registers_after(event::ud2, s));
    });
    CHECK(seen == "");
}

TEST_CASE("changes to the frame take effect") {
    const auto guard = on_exception(exception::invalid_opcode, [](trap_frame& f, void*) {
        f.rip += 2;
        f.rbx = 5, f.r15 = 6, f.rdi = 7;
        f.rflags ^= 1 | 64;
        return verdict::resume;
    });
    const auto seen = in_cell([] {
        machine_state s = distinct_state(), expected = s;
        expected.gpr[1] = 5, expected.gpr[14] = 6, expected.gpr[5] = 7;
        expected.flags ^= 1 | 64;
        return difference(expected, registers_after(event::ud2, s));
    });
    CHECK(seen == "");
}

TEST_CASE("faults nest in handlers") {
    reserve_view();
    const auto a = on_fault(view, 1 << 20, map_fresh);
    const auto b = on_exception(exception::breakpoint, [](trap_frame&, void*) {
        *at(view + 8192) = 1;
        order += "b";
        return verdict::resume;
    });
    const auto c = on_exception(exception::invalid_opcode, [](trap_frame& f, void*) {
        static int depth = 0;
        f.rip += 2;
        if (++depth < 4) asm volatile("ud2");
        order += std::to_string(depth--);
        asm volatile("int3");
        return verdict::resume;
    });
    in_cell([] {
        asm volatile("ud2");
        return 0;
    });
    CHECK(order == "4b3b2b1b");
    CHECK(calls == 1);
}

TEST_CASE("system calls work in handlers") {
    static pid_t pid;
    static long bytes;
    const auto guard = on_exception(exception::invalid_opcode, [](trap_frame& f, void*) {
        int ends[2];
        (void)!pipe(ends);
        pid = getpid();
        bytes = write(ends[1], "abc", 3);
        close(ends[0]);
        close(ends[1]);
        delete new std::string(100, 'x');
        return skip_ud2(f, nullptr);
    });
    in_cell([] {
        asm volatile("ud2");
        return 0;
    });
    CHECK(pid == getpid());
    CHECK(bytes == 3);
}

TEST_CASE("a handler that touches what Linux refuses gets the signal") {
    const auto body = [](int signal_handler) {
        return [=] {
            if (signal_handler) {
                struct sigaction action {};
                action.sa_flags = SA_SIGINFO;
                action.sa_sigaction = [](int, siginfo_t* info, void*) {
                    _exit(info->si_addr == reinterpret_cast<void*>(24) ? 7 : 8);
                };
                sigaction(SIGSEGV, &action, nullptr);
            }
            const auto guard = on_exception(exception::invalid_opcode, [](trap_frame&, void*) {
                *reinterpret_cast<volatile int*>(24) = 1;
                return verdict::resume;
            });
            in_cell([] {
                asm volatile("ud2");
                return 0;
            });
            return 1;
        };
    };
    CHECK(in_child(body(0)) == ended{"signal 11", ""});
    CHECK(in_child(body(1)) == ended{"exit 7", ""});
}

TEST_CASE("a handler that keeps faulting ends the process with a report") {
    const ended e = in_child([] {
        const auto guard = on_exception(exception::invalid_opcode, [](trap_frame&, void*) {
            asm volatile("ud2");
            return verdict::resume;
        });
        in_cell([] {
            asm volatile("ud2");
            return 0;
        });
        return 1;
    });
    CHECK(e.status == "signal 6");
    CHECK(e.errors.find("keeps faulting") != std::string::npos);
}

TEST_CASE("a handler of Linux's refusals that keeps faulting ends the process with a report") {
    const ended e = in_child([] {
        static char* p = closed_pages(1);
        const auto guard = on_fault(address_of(p), 4096, [](trap_frame&, void*) {
            *static_cast<volatile char*>(p) = 1;
            return verdict::resume;
        });
        in_cell([] {
            *static_cast<volatile char*>(p) = 1;
            return 0;
        });
        return 1;
    });
    CHECK(e.status == "signal 6");
    CHECK(e.errors.find("keeps faulting") != std::string::npos);
}

TEST_CASE("many threads fault on one view at the same time") {
    constexpr unsigned pages = 128, threads = 8;
    reserve_view();
    const auto guard = on_fault(view, 1 << 20, map_fresh);
    in_cell([] {
        on_threads(threads, [](unsigned) {
            for (unsigned i = 0; i < pages; i++) {
                __atomic_fetch_add(reinterpret_cast<unsigned*>(view.value + i * 4096), 1,
                                   __ATOMIC_RELAXED);
            }
        });
        return 0;
    });
    const auto sum = in_cell([] {
        unsigned sum = 0;
        for (unsigned i = 0; i < pages; i++)
            sum += *reinterpret_cast<unsigned*>(view.value + i * 4096);
        return sum;
    });
    CHECK(sum == pages * threads);
    CHECK(calls >= pages);
    CHECK(calls <= pages * threads);
}

TEST_CASE("many threads fault on memory of Linux's at the same time") {
    constexpr unsigned pages = 16, threads = 6;
    static char* p = closed_pages(pages);
    const auto guard = on_fault(address_of(p), pages * 4096, open_page);
    in_cell([] {
        on_threads(threads, [](unsigned) {
            for (unsigned i = 0; i < pages; i++) {
                __atomic_fetch_add(reinterpret_cast<unsigned*>(p + i * 4096), 1, __ATOMIC_RELAXED);
            }
        });
        return 0;
    });
    unsigned sum = 0;
    for (unsigned i = 0; i < pages; i++) sum += *reinterpret_cast<unsigned*>(p + i * 4096);
    CHECK(sum == pages * threads);
}

TEST_CASE("frames run out and come back") {
    start({.mode = wanted_mode(), .frame_arena = 2 << 20});
    view = vm::reserve(1 << 20);
    const auto counts = in_cell([] {
        std::vector<gpa> all;
        for (gpa f = vm::allocate_frame(); f != gpa{0}; f = vm::allocate_frame()) all.push_back(f);
        const std::size_t first = all.size();
        for (gpa f : all) vm::free_frame(f);
        std::size_t second = 0;
        while (vm::allocate_frame() != gpa{0}) second++;
        return std::pair(first, second);
    });
    CHECK(counts == std::pair<std::size_t, std::size_t>(512, 512));
}

TEST_CASE("a view survives a fork") {
    reserve_view();
    const auto guard = on_fault(view, 1 << 20, map_fresh);
    const std::string child = in_cell([] {
        *at(view) = 'p';
        const int pid = fork();
        if (pid == 0) {
            const bool kept = *at(view) == 'p';
            *at(view) = 'c';
            *at(view + 4096) = 'n';
            _exit(kept && *at(view + 4096) == 'n' ? 0 : 1);
        }
        return status_of(pid) + static_cast<char>(*at(view));
    });
    CHECK(child == "exit 0p");
}

TEST_CASE("exceptions taken in the guest are counted") {
    const auto guard = on_exception(exception::invalid_opcode, skip_ud2);
    ensure_cell();
    const auto before = stats().exceptions[6];
    in_cell([] {
        asm volatile("ud2\n ud2\n ud2");
        return 0;
    });
    CHECK(stats().exceptions[6] - before == 3);
}
