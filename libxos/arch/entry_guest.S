// The stubs of the guest: entering and leaving, the SYSCALL entry, exceptions.
//
// Nothing here may change a register of the application that Linux would keep. Every stretch in which a
// signal may find the vCPU has labels: resolve() in cell/registers_host.cpp decides by RIP whether to take
// the system call back, to finish it, or to wait for the next poll.
#include "libxos/arch/guest_layout.h"

        .text
        .balign 64
        .globl xos_stubs_begin
xos_stubs_begin:

// ---- first instructions in the guest; RSP is the application's, as xos_switch_to_guest left it
        .globl xos_resume_in_guest
xos_resume_in_guest:
        movq    %gs:XOS_AREA_FS_BASE, %rax
        wrfsbase %rax
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

// ---- void xos_leave_guest(): returns in host mode
        .globl xos_leave_guest
xos_leave_guest:
        pushq   %rbp
        pushq   %rbx
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        subq    $8, %rsp
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        movq    %rsp, %gs:XOS_AREA_LEAVE_RSP
        rdfsbase %rax
        movq    %rax, %gs:XOS_AREA_FS_BASE
        outl    %eax, $XOS_PORT_LEAVE
        ud2

// ---- SYSCALL at the application's privilege level (ring0, pvm), and from CPL 3 (ring3)
.macro SYSCALL_ENTRY name, ring3
        .balign 64
        .globl  xos_\name
xos_\name:
    .if \ring3
        swapgs
    .endif
        .globl  xos_\name\()_begin
xos_\name\()_begin:
        movq    %rcx, %gs:XOS_AREA_RIP
        .globl  xos_\name\()_saved
xos_\name\()_saved:
        cmpq    $XOS_SYSCALL_TABLE, %rax
        jae     .L\name\()_large
        leaq    xos_local_calls(%rip), %rcx
        movq    (%rcx,%rax,8), %rcx
        testq   %rcx, %rcx
        jz      xos_\name\()_forward
        incq    %gs:XOS_AREA_LOCAL_COUNTS(,%rax,8)
.L\name\()_local:
        movq    %rsp, %gs:XOS_AREA_RSP
        movq    %gs:XOS_AREA_SYSCALL_STACK, %rsp
        pushq   %r11
        pushq   %rdi
        pushq   %rsi
        pushq   %rdx
        pushq   %r8
        pushq   %r9
        pushq   %r10
        xchgq   %rcx, %r10
        call    *%r10
        // From here on the call has happened: a signal finishes it (xos_..._tail to _end).
        .globl  xos_\name\()_tail
xos_\name\()_tail:
        cmpq    $0, %gs:XOS_AREA_PENDING
        jne     .L\name\()_poll
.L\name\()_restore:
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rdx
        popq    %rsi
        popq    %rdi
    .if \ring3
        popq    %r11
    .else
        popfq
    .endif
        movq    %gs:XOS_AREA_RIP, %rcx
        movq    %gs:XOS_AREA_RSP, %rsp
    .if \ring3
        swapgs
        .globl  xos_\name\()_local_sysret
xos_\name\()_local_sysret:
        sysretq
    .else
        jmp     *%rcx
    .endif
.L\name\()_poll:
        outl    %eax, $XOS_PORT_SYSCALL_POLL
        jmp     .L\name\()_restore
        .globl  xos_\name\()_tail_end
xos_\name\()_tail_end:

.L\name\()_large:
        leaq    -XOS_GATEWAY_BASE(%rax), %rcx
        cmpq    $XOS_GATEWAY_COUNT, %rcx
        jae     xos_\name\()_forward
        movq    %rax, %gs:XOS_AREA_SCRATCH
        leaq    xos_gateway_calls(%rip), %rax
        movq    (%rax,%rcx,8), %rcx
        movq    %gs:XOS_AREA_SCRATCH, %rax
        testq   %rcx, %rcx
        jnz     .L\name\()_local
xos_\name\()_forward:
        movq    %rax, %gs:XOS_AREA_NUMBER
        movq    %rdi, %gs:XOS_AREA_ARGUMENTS
        movq    %rsi, %gs:XOS_AREA_ARGUMENTS+8
        movq    %rdx, %gs:XOS_AREA_ARGUMENTS+16
        movq    %r10, %gs:XOS_AREA_ARGUMENTS+24
        movq    %r8, %gs:XOS_AREA_ARGUMENTS+32
        movq    %r9, %gs:XOS_AREA_ARGUMENTS+40
        movq    %r11, %gs:XOS_AREA_FLAGS
        movq    %rsp, %gs:XOS_AREA_RSP
        // Nothing has happened up to and including this instruction: a signal takes the call back.
        .globl  xos_\name\()_out
xos_\name\()_out:
        outl    %eax, $XOS_PORT_SYSCALL
        // From here on the answer is in the area: a signal finishes the call (to xos_..._forward_end).
        .globl  xos_\name\()_done
xos_\name\()_done:
        cmpl    $0, %gs:XOS_AREA_FLUSH_WANTED
        jne     .L\name\()_flush
.L\name\()_flushed:
        movq    %gs:XOS_AREA_RESULT, %rax
        movq    %gs:XOS_AREA_RIP, %rcx
    .if \ring3
        movq    %gs:XOS_AREA_FLAGS, %r11
        swapgs
        .globl  xos_\name\()_forward_sysret
xos_\name\()_forward_sysret:
        sysretq
    .else
        movq    %gs:XOS_AREA_SYSCALL_STACK, %rsp
        pushq   %gs:XOS_AREA_FLAGS
        popfq
        movq    %gs:XOS_AREA_RSP, %rsp
        jmp     *%rcx
    .endif
.L\name\()_flush:                      // never in pvm: its KVM flushes other vCPUs itself
        movl    $0, %gs:XOS_AREA_FLUSH_WANTED
        movq    %cr3, %rcx
        movq    %rcx, %cr3
        jmp     .L\name\()_flushed
        .globl  xos_\name\()_forward_end
xos_\name\()_forward_end:
.endm

        SYSCALL_ENTRY syscall_flat, 0
        SYSCALL_ENTRY syscall_ring3, 1

// ---- a local call leaves call RAX to Linux (syscall/local_calls_guest.S). It stays among the stubs: for one
// instruction the stack is the application's, but the call has not been recorded.
        .globl  xos_decline_local
        .hidden xos_decline_local
xos_decline_local:
        decq    %gs:XOS_AREA_LOCAL_COUNTS(,%rax,8)
        addq    $8, %rsp
        popq    %r10
        popq    %r9
        popq    %r8
        popq    %rdx
        popq    %rsi
        popq    %rdi
        popq    %r11
        movq    %gs:XOS_AREA_RSP, %rsp
        cmpl    $0, %gs:XOS_AREA_IS_RING3
        je      xos_syscall_flat_forward
        jmp     xos_syscall_ring3_forward

// ---- ring3: the host sends a vCPU that stopped at CPL 0 back to the application by an IRET frame
        .globl  xos_return_swapped, xos_return_unswapped
xos_return_swapped:
        swapgs
xos_return_unswapped:
        iretq

// ---- exceptions at CPL 0 (ring0, ring3): from the IST stack to the trap stack
//
// On the IST stack, after the two pushes: rcx rax vector error rip cs rflags rsp ss.
.macro TO_TRAP_STACK
        pushq   %rax
        pushq   %rcx
        movq    56(%rsp), %rax
        movq    %rax, %rcx
        subq    %gs:XOS_AREA_TRAP_BASE, %rcx
        cmpq    %gs:XOS_AREA_TRAP_SIZE, %rcx
        jb      2f
        movq    %gs:XOS_AREA_TRAP_TOP, %rax
1:      movq    64(%rsp), %rcx
        movq    %rcx, -8(%rax)
        movq    56(%rsp), %rcx
        movq    %rcx, -16(%rax)
        movq    48(%rsp), %rcx
        movq    %rcx, -24(%rax)
        movq    40(%rsp), %rcx
        movq    %rcx, -32(%rax)
        movq    32(%rsp), %rcx
        movq    %rcx, -40(%rax)
        movq    %cr2, %rcx
        movq    %rcx, -48(%rax)
        movq    24(%rsp), %rcx
        movq    %rcx, -56(%rax)
        movq    16(%rsp), %rcx
        movq    %rcx, -64(%rax)
        subq    $64, %rax
.endm

// Nested: go on below the interrupted code's red zone, if there is room. RCX = offset in the stack.
.macro NESTED_TRAP
2:      cmpq    $XOS_TRAP_RESERVE, %rcx
        jb      xos_trap_stack_exhausted
        subq    $XOS_RED_ZONE, %rax
        andq    $-16, %rax
        subq    $8, %rax
        jmp     1b
.endm

        .balign 64
xos_trap_ring0:
        pushq   %rax
        pushq   %rcx
        movq    56(%rsp), %rax
        movq    %rax, %rcx
        subq    %gs:XOS_AREA_TRAP_BASE, %rcx
        cmpq    %gs:XOS_AREA_TRAP_SIZE, %rcx
        jb      2f
        movq    %gs:XOS_AREA_TRAP_TOP, %rax
        // Goes straight into the frame: there is no change of privilege in between.
1:      movq    %rsp, %rcx
        movq    %rax, %rsp
        pushq   64(%rcx)
        pushq   56(%rcx)
        pushq   48(%rcx)
        pushq   40(%rcx)
        pushq   32(%rcx)
        movq    %cr2, %rax
        pushq   %rax
        pushq   24(%rcx)
        pushq   16(%rcx)
        pushq   8(%rcx)
        pushq   %rbx
        pushq   (%rcx)
        jmp     .Lupcall_from_rdx
        NESTED_TRAP

        .balign 64
xos_trap_ring3:
        testb   $3, 24(%rsp)            // vector error rip cs: a fault of kernel-side code stays at CPL 0
        jz      xos_trap_ring0
        swapgs
        TO_TRAP_STACK
        // Builds an IRET frame to the upcall at CPL 3 over what was copied.
        movq    $0x2b, 64(%rsp)
        movq    %rax, 56(%rsp)
        movq    $0x33, 40(%rsp)
        leaq    xos_trap_upcall(%rip), %rax
        movq    %rax, 32(%rsp)
        andq    $~0x50500, 48(%rsp)     // the handler starts without TF, DF, RF, AC
        popq    %rcx
        popq    %rax
        addq    $16, %rsp
        swapgs
        iretq
        NESTED_TRAP

xos_trap_stack_exhausted:
        movl    $XOS_DIE_TRAP_STACK, %eax
        outl    %eax, $XOS_PORT_DIE
        ud2

// ---- where an unwinder finds the interrupted code's registers: each DW_CFA_expression says "at RSP + n" by
// DW_OP_breg7, and the interrupted code's own RSP is the CFA (DWARF 4, 2.5.1 and 6.4.2)
.macro SAVED_AT column, offset
        .cfi_escape 0x10, \column, 3, 0x77, (\offset & 0x7f) | 0x80, \offset >> 7
.endm
.macro TRAP_FRAME_IS_AT_RSP
        .cfi_escape 0x0f, 4, 0x77, (XOS_FRAME_RSP & 0x7f) | 0x80, XOS_FRAME_RSP >> 7, 0x06
        SAVED_AT 15, 0
        SAVED_AT 14, 8
        SAVED_AT 13, 16
        SAVED_AT 12, 24
        SAVED_AT 11, 32
        SAVED_AT 10, 40
        SAVED_AT 9, 48
        SAVED_AT 8, 56
        SAVED_AT 6, 64                  // RBP
        SAVED_AT 5, 72                  // RDI
        SAVED_AT 4, 80                  // RSI
        SAVED_AT 1, 88                  // RDX
        SAVED_AT 2, 96                  // RCX
        SAVED_AT 3, 104                 // RBX
        SAVED_AT 0, XOS_FRAME_RAX
        SAVED_AT 16, XOS_FRAME_RIP
.endm

// ---- the common part, at the application's privilege, on the trap stack: vector error cr2 rip ...
        .balign 64
xos_trap_upcall:
        pushq   %rax
        pushq   %rbx
        pushq   %rcx
.Lupcall_from_rdx:
        pushq   %rdx
        pushq   %rsi
        pushq   %rdi
        pushq   %rbp
        pushq   %r8
        pushq   %r9
        pushq   %r10
        pushq   %r11
        pushq   %r12
        pushq   %r13
        pushq   %r14
        pushq   %r15
        // The host starts here when Linux refused the access. An exception that a handler throws continues in
        // the interrupted code (libxos/trap/unwind_guest.cpp).
        .globl  xos_trap_dispatch_frame
xos_trap_dispatch_frame:
        .cfi_startproc
        .cfi_signal_frame
        .cfi_personality 0x1b, xos_unwind_trap
        TRAP_FRAME_IS_AT_RSP
        cld
        movq    %rsp, %rdi
        call    xos_trap_dispatch
        cmpq    $0, %gs:XOS_AREA_PENDING
        jne     .Ltrap_poll
        .cfi_endproc
        // From here to the IRETQ the frame holds the application's state: a signal finishes the return.
        .globl  xos_trap_restore
xos_trap_restore:
        movq    (%rsp), %r15
        movq    8(%rsp), %r14
        movq    16(%rsp), %r13
        movq    24(%rsp), %r12
        movq    32(%rsp), %r11
        movq    40(%rsp), %r10
        movq    48(%rsp), %r9
        movq    56(%rsp), %r8
        movq    64(%rsp), %rbp
        movq    72(%rsp), %rdi
        movq    80(%rsp), %rsi
        movq    88(%rsp), %rdx
        movq    96(%rsp), %rcx
        movq    104(%rsp), %rbx
        movq    112(%rsp), %rax
        leaq    XOS_FRAME_RIP(%rsp), %rsp
        .globl  xos_trap_iret
xos_trap_iret:
        iretq
        .globl  xos_trap_restore_end
xos_trap_restore_end:
.Ltrap_poll:
        movq    %rsp, %gs:XOS_AREA_FRAME
        outl    %eax, $XOS_PORT_TRAP_POLL
        jmp     xos_trap_restore

// ---- long xos_call_saving_fpu(void* a, void* b, fn, xsave size, xcr0): calls fn(a, b) with the extended
// state of the interrupted code put away, because an application's handler may use it
        .globl  xos_call_saving_fpu
xos_call_saving_fpu:
        .cfi_startproc
        pushq   %rbp
        pushq   %rbx
        movq    %rsp, %rbp
        .cfi_def_cfa %rbp, 24
        .cfi_offset %rbp, -16
        .cfi_offset %rbx, -24
        movq    %rdx, %rax
        movq    %r8, %rbx               // components
        subq    %rcx, %rsp
        andq    $-64, %rsp
        xorl    %ecx, %ecx
        movq    %rcx, 512(%rsp)         // XRSTOR refuses a header with anything else in it
        movq    %rcx, 520(%rsp)
        movq    %rcx, 528(%rsp)
        movq    %rcx, 536(%rsp)
        movq    %rcx, 544(%rsp)
        movq    %rcx, 552(%rsp)
        movq    %rcx, 560(%rsp)
        movq    %rcx, 568(%rsp)
        movq    %rax, %r11
        movl    %ebx, %eax
        movq    %rbx, %rdx
        shrq    $32, %rdx
        xsave   (%rsp)
        call    *%r11
        movq    %rax, %r11
        movl    %ebx, %eax
        movq    %rbx, %rdx
        shrq    $32, %rdx
        xrstor  (%rsp)
        movq    %r11, %rax
        movq    %rbp, %rsp
        popq    %rbx
        popq    %rbp
        ret
        .cfi_endproc

// ---- IDT targets at CPL 0: push what the processor did not
.macro VECTORS name, target
        .balign 16
        .globl  \name
\name:
    .set    v, 0
    .rept   32
        .balign 16
        .if !(v == 8 || (v >= 10 && v <= 14) || v == 17 || v == 21 || v == 29 || v == 30)
        pushq   $0
        .endif
        pushq   $v
        jmp     \target
        .set    v, v + 1
    .endr
.endm
        VECTORS xos_vectors_ring0, xos_trap_ring0
        VECTORS xos_vectors_ring3, xos_trap_ring3

// ---- pvm: ring 0 is interpreted, so its stubs do little. They step over the hardware's frame to an IRET frame
// that was built beforehand at the top of each IST stack, and CPL 3 does the rest. Below the top T: ss rsp
// rflags cs rip [error] [cr2, or the vector at T-64].
        .balign 16
        .globl  xos_vectors_pvm
xos_vectors_pvm:
    .set    v, 0
    .rept   32
        .balign 16
    .if v == 14
        pushq   %rax
        movq    %cr2, %rax
        xchgq   %rax, (%rsp)
        addq    $56, %rsp
    .elseif v == 13
        addq    $48, %rsp
    .elseif v == 6
.Lstep_over_frame:
        addq    $40, %rsp
    .elseif v == 3
        cmpb    $XOS_PVM_GATEWAY, 24(%rsp)
        jne     .Lstep_over_frame
        movq    %rax, %cr3
    .elseif v == 8 || (v >= 10 && v <= 12) || v == 17 || v == 21 || v == 29 || v == 30
        movb    $v, -16(%rsp)
        addq    $48, %rsp
    .else
        movb    $v, -24(%rsp)
        addq    $40, %rsp
    .endif
        iretq
        .set    v, v + 1
        .org    xos_vectors_pvm + 16 * v        // an error if a stub is longer than its place
    .endr

.macro LANDING name, vector, has_error, has_address
        .balign 16
        .globl  xos_landing_\name
xos_landing_\name:
        movq    %rax, -8(%rsp)
        movq    %rcx, -16(%rsp)
        movq    -XOS_LANDING_ABOVE_TOP-16(%rsp), %rax
        movq    %rax, %rcx
        subq    %gs:XOS_AREA_TRAP_BASE, %rcx
        cmpq    %gs:XOS_AREA_TRAP_SIZE, %rcx
        jb      2f
        movq    %gs:XOS_AREA_TRAP_TOP, %rax
1:      movq    -XOS_LANDING_ABOVE_TOP-8(%rsp), %rcx
        movq    %rcx, -8(%rax)
        movq    -XOS_LANDING_ABOVE_TOP-16(%rsp), %rcx
        movq    %rcx, -16(%rax)
        movq    -XOS_LANDING_ABOVE_TOP-24(%rsp), %rcx
        movq    %rcx, -24(%rax)
        movq    -XOS_LANDING_ABOVE_TOP-32(%rsp), %rcx
        movq    %rcx, -32(%rax)
        movq    -XOS_LANDING_ABOVE_TOP-40(%rsp), %rcx
        movq    %rcx, -40(%rax)
    .if \has_address
        movq    -XOS_LANDING_ABOVE_TOP-56(%rsp), %rcx
        movq    %rcx, -48(%rax)
    .else
        movq    $0, -48(%rax)
    .endif
    .if \has_error
        movq    -XOS_LANDING_ABOVE_TOP-48(%rsp), %rcx
        movq    %rcx, -56(%rax)
    .else
        movq    $0, -56(%rax)
    .endif
    .if \vector >= 0
        movq    $\vector, -64(%rax)
    .else
        movzbl  -XOS_LANDING_ABOVE_TOP-64(%rsp), %ecx
        movq    %rcx, -64(%rax)
    .endif
        subq    $64, %rax
        movq    %rax, %gs:XOS_AREA_SCRATCH
        movq    -8(%rsp), %rax
        movq    -16(%rsp), %rcx
        movq    %gs:XOS_AREA_SCRATCH, %rsp
        jmp     xos_trap_upcall
        NESTED_TRAP
.endm
        LANDING page_fault, 14, 1, 1
        LANDING protection, 13, 1, 0
        LANDING opcode, 6, 0, 0
        LANDING breakpoint, 3, 0, 0
        // The other vectors share one stub. An error code that was not pushed reads as whatever lay there
        // before; handlers are told of an error code only if the vector has one.
        LANDING other, -1, 1, 0

// ---- void xos_load_root_pvm(root): CR3, which flushes, by way of INT3 and the stub at ring 0
        .balign 16
        .globl  xos_load_root_pvm
xos_load_root_pvm:
        movq    %rdi, %rax
        movq    %rsp, %rcx
        movl    $XOS_PVM_GATEWAY, %esp
        int3
        movq    %rcx, %rsp
        ret

// ---- is ring 0 executed or interpreted? RCX = iterations
        .balign 16
        .globl  xos_probe_loop
xos_probe_loop:
        decq    %rcx
        jnz     xos_probe_loop
        outl    %eax, $XOS_PORT_PROBE
        jmp     xos_probe_loop

        .globl  xos_stubs_end
xos_stubs_end:

        .section .note.GNU-stack,"",@progbits
