/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * The interface between xos.ko and a user-space program that runs itself in a KVM virtual machine.
 *
 * A program opens /dev/xos, attaches its VM, and names for every vCPU a frame in its own memory. A
 * 32-bit OUT of the guest to the attached port is a doorbell: the module makes the system call in
 * the vCPU's frame, for the thread that is in KVM_RUN, stores the result and lets the guest go on.
 * What it will not do leaves KVM_RUN as KVM_EXIT_IO, exactly as if the module were not there.
 *
 * A call that a signal interrupts leaves KVM_RUN with -EINTR and one of -XOS_RESTART_* as its
 * result, which Linux itself never shows. The program then does what Linux would have done: make
 * the call again, or let it return -EINTR, depending on the code and on the signal's action.
 */
#ifndef XOS_UAPI_H
#define XOS_UAPI_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* Must be the same on both sides. */
#define XOS_ABI_VERSION 2

/* Numbers from here on are never made by the module. */
#define XOS_CALLS 512

/*
 * In place of a number: arguments[0] is the address of an array of struct xos_call, arguments[1]
 * how many they are, arguments[2] flags. The result says how many have been made; for the rest the
 * guest rings again.
 * Short of all, the next call is one that the module leaves to user space, or something is to be
 * done before the guest goes on. If the next call was begun and interrupted, the result carries a
 * flag, which user space removes, and the call's own result is one of -XOS_RESTART_*.
 */
#define XOS_NR_VECTOR 0x584f5380
#define XOS_VECTOR_MAX 256
#define XOS_VECTOR_INTERRUPTED 0x100000000ull
#define XOS_VECTOR_STOP_AT_ERROR 1 /* flag: a call that fails is the last one that is made */

struct xos_call {
	__u64 number;
	__u64 arguments[6];
	__s64 result;
};

struct xos_frame {
	__u64 gate; /* while it is not 0, every doorbell goes to user space */
	struct xos_call call;
};

/* include/linux/errno.h: interrupted, and how the call is to be restarted */
#define XOS_RESTART_SYS 512	   /* if the handler has SA_RESTART, or there is none */
#define XOS_RESTART_NO_INTR 513	   /* always */
#define XOS_RESTART_NO_HANDLER 514 /* if there is no handler */
#define XOS_RESTART_BLOCK 516	   /* likewise, by restart_syscall(2) */

struct xos_info {
	__u32 abi_version;
	__u32 features; /* valid after a successful attach */
};

/* Doorbells are answered inside KVM_RUN; without this, only inside XOS_IOC_RUN. */
#define XOS_FEATURE_BUS 1

/*
 * What is to be looked at before a call is made: for each of its arguments, the first in the lowest
 * bits, four bits with one of XOS_LOOK_*. Where the look finds something that the program does not
 * want Linux to touch, or takes long, the call is left to user space. Nothing is faulted in.
 */
#define XOS_LOOK_BITS 4
#define XOS_LOOK_NOT 0
#define XOS_LOOK_OPENED 1 /* the name of a file to open: not one that ends in "/mem" */
/* Memory that is read, or with one added written: */
#define XOS_LOOK_START 2    /* its first byte */
#define XOS_LOOK_NEXT 4	    /* as many bytes as the next argument says */
#define XOS_LOOK_PREVIOUS 6 /* as many bytes as the argument before says */
#define XOS_LOOK_FUTEX 8 /* a futex, written unless the next argument says that it is private */
#define XOS_LOOK_DESCRIPTOR 9 /* a descriptor: not one of xos_attach's */
/* Read, or with one added written, is what these point to: */
#define XOS_LOOK_BUFFERS 10  /* an array of struct iovec, as many as the next argument says */
#define XOS_LOOK_MESSAGE 12  /* struct msghdr */
#define XOS_LOOK_MESSAGES 14 /* an array of struct mmsghdr, as many as the next argument says */

/* In xos_attach's list: the call may be made, after the looks in the lower bits. */
#define XOS_CALL_MADE 0x80000000u

/* How many bits there are in xos_attach's set of descriptors. */
#define XOS_DESCRIPTORS 65536

struct xos_attach {
	__u32 abi_version;
	__s32 vm_fd;
	__u32 max_vcpus; /* ids are smaller */
	__u32 port;
	__u64 calls; /* address of XOS_CALLS __u32, by number: 0, or XOS_CALL_MADE with looks */
	__u64 descriptors; /* address of a bit for each descriptor that no call may name, or 0 */
};

/*
 * Addresses where the guest's page tables decide what there is, while Linux has readable and
 * writable memory everywhere. A call that names memory there is made only if the tables allow what
 * it will do. They have four levels, and only leaves take rights away. A VM has one such range in
 * its life, given once; a length of 0 ends it.
 */
struct xos_guard {
	__u64 begin;
	__u64 length;
	__u64 root; /* guest-physical address of the topmost table */
	__u64 tables; /* where the tables are in the process's memory */
	__u64 tables_physical; /* the guest-physical address of that */
	__u64 tables_length;
};

struct xos_vcpu {
	__u32 id; /* as in KVM_CREATE_VCPU */
	__u32 reserved;
	__u64 frame;
};

/* KVM_RUN in a loop, for kernels whose port bus cannot be reached. */
struct xos_run {
	__s32 vcpu_fd;
	__u32 id;
	__u64 run; /* where struct kvm_run is mapped */
};

enum xos_punt {
	XOS_PUNT_CALL,	  /* a call that the module or the program does not allow */
	XOS_PUNT_WATCHED, /* seccomp, ptrace, audit or tracing must see it */
	XOS_PUNT_SIGNAL,  /* a signal is pending: its handler comes first */
	XOS_PUNT_GATE,	  /* the frame's gate is closed */
	XOS_PUNT_FRAME,	  /* the frame cannot be read, or the vector is too long */
	XOS_PUNT_VCPU,	  /* the vCPU has no frame */
	XOS_PUNT_LOOK,	  /* user space must look at what the call names */
	XOS_PUNT_COUNT
};

struct xos_statistics {
	__u64 vectors;	   /* doorbells for a vector */
	__u64 interrupted; /* calls with a result of -XOS_RESTART_* */
	__u64 punted[XOS_PUNT_COUNT];
	__u64 calls[XOS_CALLS]; /* made in the kernel, by number */
};

struct xos_extent {
	__u64 address;
	__u64 bytes;
	__u64 physical;
	__s32 node;
	__u32 reserved;
};

/*
 * The physically contiguous extents of a range that are present, in ascending order; nothing is
 * faulted in. Needs CAP_SYS_ADMIN, as /proc/PID/pagemap does.
 */
struct xos_layout {
	__u64 address;	/* in: page aligned; out: where to go on */
	__u64 bytes;	/* in: page aligned; out: what is left, 0 when all has been seen */
	__u64 extents;	/* address of an array of struct xos_extent */
	__u32 capacity; /* of that array */
	__u32 count;	/* out */
};

#define XOS_IOC_INFO _IOR('X', 0xd0, struct xos_info)
#define XOS_IOC_ATTACH _IOW('X', 0xd1, struct xos_attach)
#define XOS_IOC_VCPU _IOW('X', 0xd2, struct xos_vcpu)
#define XOS_IOC_RUN _IOW('X', 0xd3, struct xos_run)
#define XOS_IOC_STATISTICS _IOR('X', 0xd4, struct xos_statistics)
#define XOS_IOC_LAYOUT _IOWR('X', 0xd5, struct xos_layout)
#define XOS_IOC_GUARD _IOW('X', 0xd6, struct xos_guard)

#endif
