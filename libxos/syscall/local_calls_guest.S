// The entries of local_calls.def's calls, two a call: the second also logs what is answered.
#include <asm/unistd.h>

#include "libxos/arch/guest_layout.h"

        .text

// On the system-call stack, above the return address: r10 r9 r8 rdx rsi rdi.
.macro LOGGED number, fn
        .balign 16
        .globl  xos_traced_\fn
xos_traced_\fn:
        movq    %rdx, %r11
        rdtsc
        shlq    $32, %rdx
        orq     %rdx, %rax
        movq    %r11, %rdx
        pushq   %rax
        pushq   $\number
        call    xos_\fn
        popq    %rdi
        popq    %rsi
        cmpq    $XOS_LOCAL_DECLINED, %rax
        je      1f
        pushq   %rax
        movq    %rax, %rdx
        leaq    16(%rsp), %rcx
        call    xos_trace_local
        popq    %rax
        ret
1:      movl    $\number, %eax
        jmp     xos_decline_local
.endm

.macro LOCAL_OR_FORWARD number, fn
        .balign 16
        .globl  xos_local_\fn
xos_local_\fn:
        call    xos_\fn
        cmpq    $XOS_LOCAL_DECLINED, %rax
        je      1f
        ret
1:      movl    $\number, %eax
        jmp     xos_decline_local
        LOGGED \number, \fn
.endm

.macro VALUE_OR_FORWARD number, fn, offset
        .balign 16
        .globl  xos_local_\fn
xos_local_\fn:
        movq    %gs:\offset, %rax
        testq   %rax, %rax
        js      1f
        ret
1:      movl    $\number, %eax
        jmp     xos_decline_local
xos_\fn:
        movq    %gs:\offset, %rax
        testq   %rax, %rax
        jns     1f
        movq    $XOS_LOCAL_DECLINED, %rax
1:      ret
        LOGGED \number, \fn
.endm

#define XOS_LOCAL_CALL(name, served) LOCAL_OR_FORWARD __NR_##name, name
#define XOS_LOCAL_VALUE(name, served, offset) VALUE_OR_FORWARD __NR_##name, name, offset
#include "libxos/syscall/local_calls.def"

        .section .note.GNU-stack,"",@progbits
