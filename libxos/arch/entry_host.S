// Host-mode assembly: switching to the run loop's stack and back, forwarded calls that a signal can take
// back, and the trampoline that replaces every signal handler of the process.
#include "libxos/arch/guest_layout.h"

        .text

// ---- void xos_switch_to_guest(context*): returns inside the guest; in host mode it never returns
        .globl  xos_switch_to_guest
xos_switch_to_guest:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        subq    $8, %rsp
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, XOS_CONTEXT_APPLICATION_RSP(%rdi)
        movq    XOS_CONTEXT_LOOP_STACK(%rdi), %rsp
        xorl    %ebp, %ebp
        call    xos_begin_guest
        ud2

// ---- void xos_continue_in_host(rsp, u32* busy, mask): the rest of xos_leave_guest. The context is free
// once its stack is no longer used; only then may signals run on the application's stack again.
        .globl  xos_continue_in_host
xos_continue_in_host:
        movq    %rdi, %rsp
        movl    $0, (%rsi)
        pushq   %rdx
        movl    $14, %eax               // rt_sigprocmask
        movl    $2, %edi                // SIG_SETMASK
        movq    %rsp, %rsi
        xorl    %edx, %edx
        movl    $8, %r10d
        syscall
        addq    $8, %rsp
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        popq    %rbp
        ret

// ---- a call's number and first five arguments, from R11
.macro LOAD_CALL
        movq    (%r11), %rax
        LOAD_ARGUMENTS
.endm
.macro LOAD_ARGUMENTS
        movq    8(%r11), %rdi
        movq    16(%r11), %rsi
        movq    24(%r11), %rdx
        movq    32(%r11), %r10
        movq    40(%r11), %r8
.endm

// ---- long xos_forward(context*, const call*): makes the system call, unless a signal is waiting
//
// The call is {number, six arguments}. A signal may arrive between _check and _insn, or make the kernel
// restart the call. The handler recognises both by RIP and continues at xos_forward_taken_back, so that the
// signal is handled first and the guest then makes the call again.
        .globl  xos_forward, xos_forward_check, xos_forward_insn, xos_forward_taken_back
xos_forward:
        pushq   %rbx
        movq    %rdi, %rbx
        movq    %rsi, %r11
        LOAD_CALL
        movq    48(%r11), %r9
xos_forward_check:
        cmpl    $0, XOS_CONTEXT_SIGNALS_PENDING(%rbx)
        jne     xos_forward_taken_back
xos_forward_insn:
        syscall
        popq    %rbx
        ret
xos_forward_taken_back:
        movq    $-512, %rax             // -ERESTARTSYS: never a result the kernel shows
        popq    %rbx
        ret

// ---- long xos_forward_as(context*, const call*, number): the same, whatever number the call has
        .globl  xos_forward_as
xos_forward_as:
        pushq   %rbx
        movq    %rdi, %rbx
        movq    %rsi, %r11
        movq    %rdx, %rax
        LOAD_ARGUMENTS
        movq    48(%r11), %r9
        jmp     xos_forward_check

// ---- long xos_clone(call, child context or null): with a context the child starts its run loop. The call
// is {number, five arguments}.
        .globl  xos_clone
xos_clone:
        pushq   %r12
        movq    %rsi, %r12
        movq    %rdi, %r11
        LOAD_CALL
        syscall
        testq   %rax, %rax
        jnz     1f
        testq   %r12, %r12
        jz      1f
        movq    %r12, %rdi
        xorl    %ebp, %ebp
        call    xos_begin_thread
        ud2
1:      popq    %r12
        ret

// ---- long xos_call_apart(number, a, b, c, flags, long* result): a new process makes the system call and
// ends at once; it shares with this one what clone's flags say, memory included. Returns that process's id,
// or clone's error. Signals must be blocked: the new process has this thread's stack pointer, and does not
// touch the stack.
        .globl  xos_call_apart
xos_call_apart:
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        movq    %rdi, %rbx
        movq    %rsi, %r12
        movq    %rdx, %r13
        movq    %rcx, %r15
        movq    %r9, %r14
        movq    %r8, %rdi
        movl    $56, %eax               // clone
        xorl    %esi, %esi
        xorl    %edx, %edx
        xorl    %r10d, %r10d
        xorl    %r8d, %r8d
        syscall
        testq   %rax, %rax
        jnz     1f
        movq    %rbx, %rax
        movq    %r12, %rdi
        movq    %r13, %rsi
        movq    %r15, %rdx
        syscall
        movq    %rax, (%r14)
        xorl    %edi, %edi
        movl    $231, %eax              // exit_group
        syscall
        ud2
1:      popq    %r15
        popq    %r14
        popq    %r13
        popq    %r12
        popq    %rbx
        ret

// ---- void xos_end_thread(u32* busy, status): its last store gives the context back
        .globl  xos_end_thread
xos_end_thread:
        movl    $0, (%rdi)
        movq    %rsi, %rdi
        movl    $60, %eax
        syscall
        ud2

// ---- void xos_sigreturn(frame): RSP at the ucontext, as the kernel expects it after the handler's RET
        .globl  xos_sigreturn, xos_sigreturn_end
xos_sigreturn:
        movq    %rdi, %rsp
        movl    $15, %eax
        syscall
        ud2
xos_sigreturn_end:

// ---- the kernel calls this for every signal: rdi = number, rsi = siginfo, rdx = ucontext, rsp = frame
        .globl  xos_signal_trampoline
xos_signal_trampoline:
        rdgsbase %rcx
        movq    %rcx, %rax
        subq    xos_contexts_begin(%rip), %rax
        cmpq    xos_contexts_size(%rip), %rax
        jae     2f
        testq   $(XOS_CONTEXT_STRIDE - 1), %rax
        jnz     2f
        movq    %rsp, %r8
        cmpl    $0, XOS_CONTEXT_HOPPING(%rcx)
        je      1f
        // After a hop the frame lies on the application's stack, perhaps at its very edge.
        movq    XOS_CONTEXT_LOOP_STACK(%rcx), %rsp
        pushq   $2                      // Linux leaves AC as the application had it
        popfq
        xorl    %ebp, %ebp
        call    xos_landed
        ud2
1:      movq    %rsp, %rbx
        andq    $-16, %rsp
        call    xos_record_signal
        leaq    8(%rbx), %rsp
        movl    $15, %eax
        syscall
        ud2
2:      movq    %rsp, %rbx              // a thread outside the cell
        andq    $-16, %rsp
        pushq   $2
        popfq
        call    xos_signal_outside
        leaq    8(%rbx), %rsp
        movl    $15, %eax
        syscall
        ud2

        .section .note.GNU-stack,"",@progbits
