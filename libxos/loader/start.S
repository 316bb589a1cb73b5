// The loader's first and last instructions.
        .text

// ---- Linux starts the process here: RSP is at argc. Nothing has been relocated yet.
        .globl  _start
        .hidden _DYNAMIC
_start:
        xorl    %ebp, %ebp
        movq    %rsp, %rdi
        leaq    _DYNAMIC(%rip), %rsi
        andq    $-16, %rsp
        call    xos_loader_start
        ud2

// ---- void xos_start_program(rsp, entry): sets the registers as Linux leaves them for a program
        .globl  xos_start_program
xos_start_program:
        movq    %rdi, %rsp
        movq    %rsi, -8(%rsp)
        xorl    %eax, %eax
        xorl    %ebx, %ebx
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        xorl    %esi, %esi
        xorl    %edi, %edi
        xorl    %ebp, %ebp
        xorl    %r8d, %r8d
        xorl    %r9d, %r9d
        xorl    %r10d, %r10d
        xorl    %r11d, %r11d
        xorl    %r12d, %r12d
        xorl    %r13d, %r13d
        xorl    %r14d, %r14d
        xorl    %r15d, %r15d
        jmp     *-8(%rsp)

        .section .note.GNU-stack,"",@progbits
