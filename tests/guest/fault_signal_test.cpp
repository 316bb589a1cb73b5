// Faults that no handler of libxos's wants are the signals that Linux would have raised.
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>
#include <x86intrin.h>

#include <cstring>

#include "tests/guest/support.hpp"

using namespace xos;
using namespace xos::test;

namespace {

char* pages;        // PROT_NONE, read-only, unmapped, code without the right to execute it
char* beyond_file;  // mapped, but past the end of its file

void make_pages() {
    pages =
        static_cast<char*>(mmap(nullptr, 4 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(pages + 4096, 4096, PROT_READ);
    (void)*static_cast<volatile char*>(pages + 4096);
    munmap(pages + 2 * 4096, 4096);
    mprotect(pages + 3 * 4096, 4096, PROT_READ | PROT_WRITE);
    pages[3 * 4096] = '\xc3';
    const int fd = memfd_create("short", 0);
    (void)!ftruncate(fd, 100);
    beyond_file =
        static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) + 4096;
}

sigjmp_buf back;
std::string seen;
alignas(16) char signal_stack[65536];

void describe_signal(int signal, siginfo_t* info, void* context) {
    asm volatile("pushfq\n andq $~0x40000, (%%rsp)\n popfq" ::
                     : "cc", "memory");  // alignment checks
    const auto& g = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    char text[200];
    const char here = 0;
    const bool on_other_stack = &here >= signal_stack && &here < signal_stack + sizeof signal_stack;
    snprintf(text, sizeof text,
             "signal %d code %d addr %p trapno %lld err %llx rip %llx flags %llx%s", signal,
             info->si_code, info->si_addr, g[REG_TRAPNO], g[REG_ERR], g[REG_RIP],
             g[REG_EFL] & 0x100, on_other_stack ? " on the alternate stack" : "");
    seen = text;
    _mm_setcsr(0x1f80);
    siglongjmp(back, 1);
}

void catch_signals(int flags) {
    struct sigaction action {};
    action.sa_sigaction = describe_signal;
    action.sa_flags = SA_SIGINFO | flags;
    for (int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP})
        sigaction(signal, &action, nullptr);
}

std::string signal_of(void (*fault)()) {
    seen = "no signal";
    if (!sigsetjmp(back, 1)) fault();
    asm volatile("fninit");
    return seen;
}

struct fault {
    const char* name;
    void (*happen)();
};

constexpr char single_step[] = "single step";

const fault faults[] = {
    {"null read", [] { (void)*reinterpret_cast<volatile char*>(8); }},
    {"null write", [] { *reinterpret_cast<volatile char*>(8) = 1; }},
    {"null call", [] { reinterpret_cast<void (*)()>(16)(); }},
    {"PROT_NONE read", [] { (void)*static_cast<volatile char*>(pages + 5); }},
    {"PROT_NONE write", [] { *static_cast<volatile char*>(pages + 6) = 1; }},
    {"read-only write", [] { *static_cast<volatile char*>(pages + 4097) = 1; }},
    {"read-only write after a read",
     [] { *static_cast<volatile char*>(pages + 4098) = static_cast<char>(pages[4098] + 1); }},
    {"unmapped read", [] { (void)*static_cast<volatile char*>(pages + 8192 + 7); }},
    {"unmapped write", [] { *static_cast<volatile char*>(pages + 8192 + 8) = 1; }},
    {"unmapped far away", [] { *reinterpret_cast<volatile char*>(0x1234'5678'9000) = 1; }},
    {"the last user page", [] { *reinterpret_cast<volatile char*>(0x7fff'ffff'f000) = 1; }},
    {"kernel address", [] { *reinterpret_cast<volatile char*>(0xffff'ffff'8100'0000) = 1; }},
    {"non-canonical read", [] { (void)*reinterpret_cast<volatile char*>(0x8000'0000'0000'0000); }},
    {"non-canonical call", [] { reinterpret_cast<void (*)()>(0x8000'0000'0000'0000)(); }},
    {"non-canonical by rbp",
     [] {
         asm volatile(
             "movq %%rbp, %%rcx\n movabsq $0x8000000000000000, %%rbp\n movb (%%rbp), %%al\n movq "
             "%%rcx, %%rbp" ::
                 : "rax", "rcx");
     }},
    {"execute PROT_NONE", [] { reinterpret_cast<void (*)()>(pages)(); }},
    {"execute data", [] { reinterpret_cast<void (*)()>(pages + 3 * 4096)(); }},
    {"execute the stack",
     [] {
         const volatile char ret = '\xc3';
         reinterpret_cast<void (*)()>(const_cast<char*>(&ret))();
     }},
    {"misaligned SSE", [] { asm volatile("movaps 1(%0), %%xmm0" ::"r"(&signal_stack)
                                         : "xmm0"); }},
    {"past the end of the file, read", [] { (void)*static_cast<volatile char*>(beyond_file + 3); }},
    {"past the end of the file, write", [] { *static_cast<volatile char*>(beyond_file + 4) = 1; }},
    {"straddling into PROT_NONE",
     [] { asm volatile("vmovdqu %%ymm0, -16(%0)" ::"r"(pages)
                       : "memory"); }},
    {"ud2", [] { asm volatile("ud2"); }},
    {"divide by zero",
     [] {
         asm volatile("xorl %%ecx, %%ecx\n cltd\n idivl %%ecx" ::: "eax", "ecx", "edx");
     }},
    {"divide overflow",
     [] {
         asm volatile("movl $0x80000000, %%eax\n cltd\n movl $-1, %%ecx\n idivl %%ecx" ::
                          : "eax", "ecx", "edx");
     }},
    {"int3", [] { asm volatile("int3"); }},
    {"int 3 in two bytes", [] { asm volatile(".byte 0xcd, 3"); }},
    {"int 4", [] { asm volatile(".byte 0xcd, 4"); }},
    {"icebp", [] { asm volatile(".byte 0xf1"); }},
    {single_step,
     [] {
         asm volatile("pushfq\n orq $0x100, (%%rsp)\n popfq\n nop\n nop" ::: "memory", "cc");
     }},
    {"SSE exception",
     [] {
         const unsigned open = 0x1f80 & ~0x200u;
         asm volatile(
             "ldmxcsr %0\n xorps %%xmm0, %%xmm0\n movl $0x3f800000, %%eax\n movd %%eax, %%xmm1\n "
             "divss %%xmm0, %%xmm1" ::"m"(open)
             : "eax", "xmm0", "xmm1");
     }},
    {"x87 exception",
     [] {
         const std::uint16_t open = 0x037b;
         asm volatile("fldcw %0\n fldz\n fld1\n fdiv %%st(1), %%st\n fwait" ::"m"(open));
     }},
    {"hlt", [] { asm volatile("hlt"); }},
    {"in",
     [] {
         asm volatile("inb $0x61, %%al" ::: "rax");
     }},
    {"in by dx",
     [] {
         asm volatile("movw $0x3f8, %%dx\n inb %%dx, %%al" ::: "rax", "rdx");
     }},
    {"out",
     [] {
         asm volatile("outb %%al, $0x80" ::: "rax");
     }},
    {"out of 4 bytes by dx",
     [] {
         asm volatile("movw $0x1234, %%dx\n outl %%eax, %%dx" ::: "rdx");
     }},
    {"string out",
     [] {
         asm volatile("movw $0x1234, %%dx\n movq %0, %%rsi\n outsb" ::"r"(&signal_stack)
                      : "rdx", "rsi");
     }},
};

/// In ring0 these belong to the application.
const fault privileged[] = {
    {"cli", [] { asm volatile("cli"); }},
    {"sti", [] { asm volatile("sti"); }},
    // Not the first: the memory that an exception is delivered to has been touched, so that its
    // delivery exits nowhere. QEMU would name the INT there, and not the exception.
    {"int 14", [] { asm volatile(".byte 0xcd, 14"); }},
    {"int 0x50", [] { asm volatile(".byte 0xcd, 0x50"); }},
    {"rdmsr",
     [] {
         asm volatile("movl $0x10, %%ecx\n rdmsr" ::: "eax", "ecx", "edx");
     }},
    {"wrmsr",
     [] {
         asm volatile("movl $0x10, %%ecx\n wrmsr" ::: "ecx");
     }},
    {"read cr0",
     [] {
         asm volatile("movq %%cr0, %%rax" ::: "rax");
     }},
    {"write cr3",
     [] {
         asm volatile("movq %%rax, %%cr3" :::);
     }},
    {"lgdt", [] { asm volatile("lgdt %0" ::"m"(signal_stack)); }},
    {"invlpg", [] { asm volatile("invlpg %0" ::"m"(signal_stack)); }},
    {"swapgs", [] { asm volatile("swapgs"); }},
    {"clts", [] { asm volatile("clts"); }},
    {"sysret",
     [] {
         asm volatile("sysretq" ::: "rcx", "r11");
     }},
};

void use_signal_stack() {
    stack_t stack{};
    stack.ss_sp = signal_stack;
    stack.ss_size = sizeof signal_stack;
    sigaltstack(&stack, nullptr);
}

void compare(const fault& one) {
    CAPTURE(one.name);
    CHECK(same([&] { return signal_of(one.happen); }) != "no signal");
}

}  // namespace

/// A single step in the guest is reported to Linux, not repeated by it: trapno and err are those of
/// the last fault that Linux itself saw.
static std::string comparable(const fault& one, const std::string& text) {
    if (one.name != std::string(single_step)) return text;
    const auto trapno = text.find(" trapno"), rip = text.find(" rip");
    return rip == std::string::npos ? text : text.substr(0, trapno) + text.substr(rip);
}

TEST_CASE("faults raise the same signals with the same details") {
    make_pages();
    catch_signals(0);
    lines natively;
    for (const auto& one : faults) natively.push_back(signal_of(one.happen));
    const auto in_the_cell = in_cell([] {
        lines all;
        for (const auto& one : faults) all.push_back(signal_of(one.happen));
        return all;
    });
    for (std::size_t i = 0; i < natively.size(); i++) {
        CAPTURE(faults[i].name);
        CHECK(comparable(faults[i], in_the_cell[i]) == comparable(faults[i], natively[i]));
    }
}

TEST_CASE("faults raise the same signals on an alternate stack") {
    make_pages();
    use_signal_stack();
    catch_signals(SA_ONSTACK);
    for (const auto& one : faults) {
        const std::string native = signal_of(one.happen);
        ensure_cell();
        enter();
        const std::string cell = signal_of(one.happen);
        leave();
        CAPTURE(one.name);
        CHECK(comparable(one, cell) == comparable(one, native));
        // QEMU does not emulate unmasked SSE exceptions.
        if (native != "no signal")
            CHECK(native.find("on the alternate stack") != std::string::npos);
    }
}

TEST_CASE("privileged instructions raise the same signals") {
    catch_signals(0);
    if (cell_mode() == mode::ring0) return;
    for (const auto& one : privileged) compare(one);
}

TEST_CASE("a thread inside gets its fault and not its neighbour") {
    make_pages();
    catch_signals(0);
    const std::string first = same([] {
        std::string text;
        std::thread([&] { text = signal_of(faults[3].happen); }).join();
        return text;
    });
    CHECK(first != "no signal");
}

TEST_CASE("an unusable stack pointer is survived on the alternate stack") {
    use_signal_stack();
    catch_signals(SA_ONSTACK);
    for (std::uint64_t bad : {std::uint64_t{0x8000'0000'0000'0000}, std::uint64_t{8},
                              std::uint64_t{0x1234'5678'9000}}) {
        static std::uint64_t rsp;
        rsp = bad;
        CAPTURE(bad);
        same([] {
            return signal_of([] {
                asm volatile("movq %0, %%rsp\n pushq %%rax" ::"r"(rsp) : "memory");
            });
        });
    }
}

TEST_CASE("a fault ends the process as it would natively") {
    make_pages();
    for (const auto& one : faults) {
        const auto body = [&](bool cell) {
            return in_child([&] {
                if (cell) enter();
                one.happen();
                return 0;
            });
        };
        CAPTURE(one.name);
        CHECK(body(true) == body(false));
    }
}

TEST_CASE("an ignored or blocked fault ends the process as it would natively") {
    make_pages();
    for (bool blocked : {false, true}) {
        const auto body = [&](bool cell) {
            return in_child([&] {
                if (cell) {
                    ensure_cell();
                    enter();
                }
                sigset_t set;
                sigemptyset(&set);
                sigaddset(&set, SIGSEGV);
                sigaddset(&set, SIGILL);
                if (blocked)
                    catch_signals(0), sigprocmask(SIG_BLOCK, &set, nullptr);
                else
                    signal(SIGILL, SIG_IGN), signal(SIGSEGV, SIG_IGN);
                const int child = fork();
                if (child == 0) {
                    asm volatile("ud2");
                    _exit(1);
                }
                if (status_of(child) != "signal 4") _exit(9);
                *static_cast<volatile char*>(pages) = 1;
                return 0;
            });
        };
        CAPTURE(blocked);
        CHECK(body(true) == body(false));
        CHECK(body(false).status == "signal 11");
    }
}

TEST_CASE("a handler repairs memory and the access is made again") {
    static char* p;
    struct sigaction action {};
    action.sa_flags = SA_SIGINFO;
    static int count;
    action.sa_sigaction = [](int, siginfo_t* info, void*) {
        count++;
        mprotect(reinterpret_cast<void*>(reinterpret_cast<std::uintptr_t>(info->si_addr) & ~4095ul),
                 4096, PROT_READ | PROT_WRITE);
    };
    sigaction(SIGSEGV, &action, nullptr);
    p = static_cast<char*>(mmap(nullptr, 16384, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    const auto result = same([] {
        mprotect(p, 16384, PROT_NONE);
        count = 0;
        p[100] = 3;
        p[5000] = 4;
        asm volatile(
            "vpcmpeqb %%xmm1, %%xmm1, %%xmm1\n vinsertf128 $1, %%xmm1, %%ymm1, %%ymm1\n vmovdqu "
            "%%ymm1, (%0)" ::"r"(p + 12288 - 6)
            : "xmm1", "memory");
        return std::vector<int>{count, p[100], p[5000], p[12288 - 6], p[12288 + 25]};
    });
    CHECK(result == std::vector<int>{4, 3, 4, -1, -1});
}

TEST_CASE("a legacy system call gate answers as Linux does") {
    same([] {
        int result = 20;  // getpid of the 32-bit table
        asm volatile("int $0x80" : "+a"(result) : : "memory", "r8", "r9", "r10", "r11");
        return result == getpid();
    });
}

TEST_CASE("misaligned accesses under the alignment-check flag raise SIGBUS") {
    catch_signals(0);
    if (cell_mode() == mode::ring0) return;  // the flag means nothing at CPL 0
    const auto body = [] {
        return signal_of([] {
            asm volatile(
                "pushfq\n orq $0x40000, (%%rsp)\n popfq\n movl 1(%0), %%eax\n pushfq\n andq "
                "$~0x40000, (%%rsp)\n popfq" ::"r"(&signal_stack)
                : "rax", "cc", "memory");
        });
    };
    const std::string cell = in_cell(body), native = body();
    CHECK(cell == native);
}
