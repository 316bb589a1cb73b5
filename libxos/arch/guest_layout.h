/* Numbers that assembly and C++ share. guest_area.hpp asserts every offset against its struct. */
#ifndef XOS_GUEST_LAYOUT_H
#define XOS_GUEST_LAYOUT_H

/* Offsets in guest_area, relative to GS in the guest. */
#define XOS_AREA_FS_BASE 8
#define XOS_AREA_TRAP_BASE 24
#define XOS_AREA_TRAP_SIZE 32
#define XOS_AREA_TRAP_TOP 40
#define XOS_AREA_SYSCALL_STACK 48
#define XOS_AREA_PENDING 56
#define XOS_AREA_NUMBER 64
#define XOS_AREA_ARGUMENTS 72
#define XOS_AREA_RESULT 120
#define XOS_AREA_RIP 128
#define XOS_AREA_FLAGS 136
#define XOS_AREA_RSP 144
#define XOS_AREA_FRAME 152
#define XOS_AREA_SCRATCH 168
#define XOS_AREA_LEAVE_RSP 176
#define XOS_AREA_FLUSH_WANTED 216
#define XOS_AREA_IS_RING3 232
#define XOS_AREA_PROCESS_ID 256
#define XOS_AREA_THREAD_ID 264
#define XOS_AREA_USER 272
#define XOS_AREA_EFFECTIVE_USER 280
#define XOS_AREA_GROUP 288
#define XOS_AREA_EFFECTIVE_GROUP 296
#define XOS_AREA_LOCAL_COUNTS 320

/* Offsets in trap_frame. */
#define XOS_FRAME_RAX 112
#define XOS_FRAME_VECTOR 120
#define XOS_FRAME_RIP 144
#define XOS_FRAME_RSP 168

/* Offsets in cell::context (host mode). */
#define XOS_CONTEXT_LOOP_STACK 8
#define XOS_CONTEXT_APPLICATION_RSP 48
#define XOS_CONTEXT_SIGNALS_PENDING 72
#define XOS_CONTEXT_HOPPING 256
#define XOS_CONTEXT_STRIDE 0x20000

/* Ports: the guest's ways out. They lie in two bytes of the I/O bitmap. */
#define XOS_PORT_FIRST 0xe0
#define XOS_PORT_LEAVE 0xe0
#define XOS_PORT_SYSCALL 0xe1
#define XOS_PORT_TRAP 0xe2
#define XOS_PORT_TRAP_POLL 0xe3
#define XOS_PORT_SYSCALL_POLL 0xe4
#define XOS_PORT_HOST_CALL 0xe5
#define XOS_PORT_NULL 0xe6
#define XOS_PORT_POLL 0xe7
#define XOS_PORT_DIE 0xe8
#define XOS_PORT_PROBE 0xe9
#define XOS_PORT_KERNEL_CALL 0xea

#define XOS_DIE_TRAP_STACK 1

/* System call numbers that have an entry in the local table. */
#define XOS_SYSCALL_TABLE 512
/* What a local call answers to leave the call to Linux: no result of Linux's. */
#define XOS_LOCAL_DECLINED -0x584f53

/* Kernel-side services, called like system calls that Linux does not have. */
#define XOS_GATEWAY_BASE 0x584f5300
#define XOS_GATEWAY_COUNT 16

/* pvm: the stack pointer that tells the gateway's INT3 from the application's. It fits a byte and is odd,
   which no stack pointer of an application's is. */
#define XOS_PVM_GATEWAY 0x21

/* pvm: where a stub on an IST finds what the hardware pushed, relative to the landing stack. */
#define XOS_LANDING_ABOVE_TOP 104

#define XOS_RED_ZONE 128
/* The least room a nested exception must find on the trap stack. */
#define XOS_TRAP_RESERVE 8192

#endif
