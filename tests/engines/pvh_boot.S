# Boot sector of an emulated machine: enters protected mode and the kernel. The emulator has put kernel,
# initramfs and START_INFO into memory before; see pvh_image.py. What the kernel expects is in Xen's
# docs/misc/pvh.pandoc: flat 32-bit segments, paging off, EBX = start info.
#
#     as --32 --defsym START_INFO=0x... pvh_boot.S -o sector.o
#     ld -m elf_i386 -Ttext 0x7c00 --oformat binary sector.o -o sector
    .globl _start
    .code16
_start:
    cli
    xorw %ax, %ax
    movw %ax, %ds
    inb $0x92, %al              # A20 on, and no reset
    andb $0xfe, %al
    orb $2, %al
    outb %al, $0x92
    lgdtl descriptors
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $8, $protected

    .code32
protected:
    movl $16, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    movl $START_INFO + 16, %ebx
    jmp *START_INFO

    .balign 8
table:
    .quad 0
    .quad 0x00cf9a000000ffff    # 8: code
    .quad 0x00cf92000000ffff    # 16: data
descriptors:
    .word . - table - 1
    .long table

    .org 510
    .word 0xaa55
