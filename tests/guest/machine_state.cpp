#include "tests/guest/machine_state.hpp"

#include <cstddef>
#include <cstring>

namespace xos::test {

namespace {

constexpr std::size_t gpr_at = offsetof(machine_state, gpr),
                      flags_at = offsetof(machine_state, flags),
                      ymm_at = offsetof(machine_state, ymm);
static_assert(gpr_at == 0 && flags_at == 120 && ymm_at == 128,
              "the assembly below has them as numbers");

extern "C" void xos_test_registers_after(const machine_state* in, machine_state* out, event what);

}  // namespace

// The event's number stays on the stack until after the flags are loaded: JMP through a table
// changes none.
asm(R"(
        .text
        .globl xos_test_registers_after
xos_test_registers_after:
        pushq %rbx
        pushq %rbp
        pushq %r12
        pushq %r13
        pushq %r14
        pushq %r15
        pushq %rsi
        leaq 9f(%rip), %rax
        movslq (%rax,%rdx,4), %rdx
        addq %rax, %rdx
        pushq %rdx
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqu 128+32*\n(%rdi), %ymm\n
        .endr
        movq (%rdi), %rax
        movq 8(%rdi), %rbx
        movq 16(%rdi), %rcx
        movq 24(%rdi), %rdx
        movq 32(%rdi), %rsi
        movq 48(%rdi), %rbp
        movq 56(%rdi), %r8
        movq 64(%rdi), %r9
        movq 72(%rdi), %r10
        movq 80(%rdi), %r11
        movq 88(%rdi), %r12
        movq 96(%rdi), %r13
        movq 104(%rdi), %r14
        movq 112(%rdi), %r15
        pushq 120(%rdi)
        movq 40(%rdi), %rdi
        popfq
        jmpq *(%rsp)
1:      ud2
        jmp 8f
2:      movb $7, (%rsi)
        jmp 8f
3:      vmovdqu (%rsi), %ymm3
        jmp 8f
4:      syscall
        jmp 8f
5:      pushfq
6:      cmpb $0, (%rsi)
        je 6b
        popfq
8:      pushq %rdi
        movq 16(%rsp), %rdi
        popq 40(%rdi)
        movq %rax, (%rdi)
        movq %rbx, 8(%rdi)
        movq %rcx, 16(%rdi)
        movq %rdx, 24(%rdi)
        movq %rsi, 32(%rdi)
        movq %rbp, 48(%rdi)
        movq %r8, 56(%rdi)
        movq %r9, 64(%rdi)
        movq %r10, 72(%rdi)
        movq %r11, 80(%rdi)
        movq %r12, 88(%rdi)
        movq %r13, 96(%rdi)
        movq %r14, 104(%rdi)
        movq %r15, 112(%rdi)
        pushfq
        popq 120(%rdi)
        .irp n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15
        vmovdqu %ymm\n, 128+32*\n(%rdi)
        .endr
        vzeroupper
        pushq $2
        popfq
        popq %rdx
        popq %rsi
        popq %r15
        popq %r14
        popq %r13
        popq %r12
        popq %rbp
        popq %rbx
        ret
        .section .rodata
        .balign 4
9:      .long 8b-9b, 1b-9b, 2b-9b, 3b-9b, 4b-9b, 5b-9b
        .text
)");

machine_state distinct_state() {
    machine_state s;
    for (unsigned i = 0; i < 15; i++) s.gpr[i] = 0x1111'2222'0000'0000 * (i % 3) + 0xabcd'0000 + i;
    s.flags = 0x2 | 1 | 4 | 16 | 64 | 128 | 2048;  // CF PF AF ZF SF OF
    for (unsigned r = 0; r < 16; r++) {
        for (unsigned b = 0; b < 32; b++) s.ymm[r][b] = static_cast<std::uint8_t>(r * 16 + b + 1);
    }
    return s;
}

machine_state registers_after(event what, const machine_state& in) {
    machine_state out;
    std::memset(&out, 0xee, sizeof out);
    xos_test_registers_after(&in, &out, what);
    return out;
}

std::string difference(const machine_state& a, const machine_state& b, unsigned ignored) {
    constexpr const char* names[] = {"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8",
                                     "r9",  "r10", "r11", "r12", "r13", "r14", "r15", "flags"};
    constexpr std::uint64_t interrupt_flag = 1 << 9;
    std::string all;
    for (unsigned i = 0; i < 15; i++) {
        if (a.gpr[i] != b.gpr[i] && !(ignored >> i & 1)) all += std::string(names[i]) + " ";
    }
    if ((a.flags | interrupt_flag) != (b.flags | interrupt_flag) && !(ignored >> 15 & 1))
        all += "flags ";
    for (unsigned i = 0; i < 16; i++) {
        if (std::memcmp(a.ymm[i], b.ymm[i], 32) != 0) all += "ymm" + std::to_string(i) + " ";
    }
    return all;
}

}  // namespace xos::test
