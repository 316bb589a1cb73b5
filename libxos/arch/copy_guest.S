// u64 xos_copy_or_stop(to, from, n): copies between the program's memory and libxos's, kernel-side. Returns how many
// bytes are left over: where an access to the program's memory cannot succeed, the dispatcher, or host mode, sends it
// from xos_copy_insn to xos_copy_stopped.
        .text
        .balign 16
        .globl  xos_copy_or_stop
        .hidden xos_copy_or_stop
xos_copy_or_stop:
        movq    %rdx, %rcx
        .globl  xos_copy_insn
        .hidden xos_copy_insn
xos_copy_insn:
        rep movsb
        .globl  xos_copy_stopped
        .hidden xos_copy_stopped
xos_copy_stopped:
        movq    %rcx, %rax
        ret

        .section .note.GNU-stack,"",@progbits
