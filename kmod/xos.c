// SPDX-License-Identifier: GPL-2.0-only
/*
 * xos: system calls of a program that runs itself in a KVM virtual machine, made inside KVM_RUN.
 *
 * Without this module such a call leaves KVM_RUN, is made by user space for the guest, and enters
 * KVM_RUN again. Here a device on the VM's port bus makes it for current, which is a thread of the
 * very process whose memory the guest runs in. See xos_uapi.h for the interface.
 *
 * Nothing is granted that the process could not do by itself: credentials, limits, security modules
 * and address checks are current's. Whatever somebody watches (seccomp, ptrace, audit, tracing) and
 * whatever depends on the registers that the thread entered the kernel with is left to user space.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/compat.h>
#include <linux/entry-common.h>
#include <linux/entry-kvm.h>
#include <linux/file.h>
#include <linux/futex.h>
#include <linux/kprobes.h>
#include <linux/kvm_host.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/nospec.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/socket.h>
#include <linux/static_call.h>
#include <linux/uaccess.h>
#include <kvm/iodev.h>
#include <asm/syscall.h>
#include "xos_calls.h"
#include "xos_uapi.h"

static bool loop;
module_param(loop, bool, 0444);
MODULE_PARM_DESC(loop, "Do not use KVM's port bus even where it can be reached");

/*
 * Functions that are not exported are reached by static calls. Those are direct calls, patched in:
 * unlike a call through a pointer they need no ENDBR at the target, which the kernel removes from
 * functions whose address it never takes.
 */
static unsigned long xos_no_lookup(const char *name)
{
	return 0;
}

static long xos_no_call(const struct pt_regs *regs, unsigned int number)
{
	return -EOPNOTSUPP;
}

static int xos_no_bus(struct kvm *kvm, enum kvm_bus bus, gpa_t address, int bytes,
		      struct kvm_io_device *device)
{
	return -EOPNOTSUPP;
}

static bool xos_no_vm(struct file *file)
{
	return false;
}

DEFINE_STATIC_CALL(xos_lookup, xos_no_lookup);
DEFINE_STATIC_CALL(xos_system_call, xos_no_call);
DEFINE_STATIC_CALL(xos_register_device, xos_no_bus);
DEFINE_STATIC_CALL(xos_is_vm, xos_no_vm);

static DECLARE_BITMAP(xos_allowed_map, XOS_CALLS) __ro_after_init;

/* One writer: the thread that holds the vCPU's mutex, or in the loop form the one that runs it. */
struct xos_state {
	struct xos_frame __user *frame;
	struct xos_statistics statistics;
};

/* Set once, before the length. Whatever it says, only the process's own memory is read by it. */
struct xos_guarded {
	u64 begin;
	u64 length;	/* 0: nothing is guarded (yet, or any more) */
	u64 root;
	u64 physical;
	u64 bytes;	/* of the tables; 0: not set */
	const char __user *tables;
};

struct xos_cell {
	struct kvm_io_device device;
	struct file *file;	/* /dev/xos itself: the VM's bus holds a reference to it */
	struct mutex lock;
	struct mm_struct *mm;	/* only to compare; null until attached */
	struct module *kvm_owner;
	u32 features;
	u32 port;
	u32 max_vcpus;
	atomic64_t strangers;
	struct xos_state **vcpus;
	const u64 __user *descriptors;
	struct xos_guarded guard;
	u32 calls[XOS_CALLS];
};

static struct xos_state *xos_find(struct xos_cell *cell, u32 id)
{
	struct xos_state *state = NULL;

	if (likely(id < cell->max_vcpus))
		/* With xos_ioctl_vcpu(): a state that is seen is complete. */
		state = smp_load_acquire(&cell->vcpus[array_index_nospec(id, cell->max_vcpus)]);
	if (unlikely(!state))
		atomic64_inc(&cell->strangers);
	return state;
}

static bool xos_is_restart(long result)
{
	return result <= -ERESTARTSYS && result >= -ERESTART_RESTARTBLOCK;
}

/* The kernel's audit_n_rules, or null. */
static const int *xos_audit_rules __ro_after_init;

/*
 * Whether somebody has to see every system call at the kernel's own entry. Audit marks all tasks
 * once it has ever been enabled, as journald does at boot, but records calls only by rules.
 */
static bool xos_watched(void)
{
	unsigned long work = READ_ONCE(current_thread_info()->syscall_work);

	work &= SYSCALL_WORK_ENTER | SYSCALL_WORK_EXIT;
	if (unlikely(work == SYSCALL_WORK_SYSCALL_AUDIT && xos_audit_rules))
		return READ_ONCE(*xos_audit_rules) || in_compat_syscall();
	return work || in_compat_syscall();
}

static long xos_make(struct xos_state *state, const struct xos_call *call)
{
	unsigned int number = array_index_nospec(call->number, XOS_CALLS);
	struct pt_regs regs = {
		.di = call->arguments[0],
		.si = call->arguments[1],
		.dx = call->arguments[2],
		.r10 = call->arguments[3],
		.r8 = call->arguments[4],
		.r9 = call->arguments[5],
		.orig_ax = number,
	};
	long result = static_call(xos_system_call)(&regs, number);

	if (unlikely(xos_is_restart(result))) {
		if (!signal_pending(current))
			return -EINTR;	/* nothing would end KVM_RUN before the guest sees it */
		state->statistics.interrupted++;
		return result;
	}
	state->statistics.calls[number]++;
	return result;
}

/* Each word once: the program may write them meanwhile. */
static __always_inline bool xos_fetch(u64 *to, const u64 __user *from, const unsigned int words)
{
	unsigned int i;

	if (!user_read_access_begin(from, words * sizeof(u64)))
		return false;
#pragma GCC unroll 8
	for (i = 0; i < words; i++)
		unsafe_get_user(to[i], &from[i], fault);
	user_read_access_end();
	return true;
fault:
	user_read_access_end();
	return false;
}

/* More is left to user space: the way there costs little beside such a call. */
#define XOS_LOOK_BYTES SZ_2M
#define XOS_LOOK_ELEMENTS 64

#define XOS_ENTRY_ADDRESS GENMASK_ULL(51, PAGE_SHIFT)
#define XOS_TABLES_MASK GENMASK_ULL(45, PAGE_SHIFT)

/*
 * Whether the guest's tables let it read, or write, all of this memory. An offset into the tables
 * is cut to less than half of what user addresses have, so that not even a speculative read with a
 * wrong one, which the check behind it would have stopped, comes to an address of the kernel's.
 */
static noinline bool xos_walk(const struct xos_guarded *guard, u64 at, u64 bytes, bool write)
{
	const char __user *tables = guard->tables;
	const u64 wanted = _PAGE_PRESENT | (write ? _PAGE_RW : 0);
	const u64 end = at + bytes;
	bool allowed = false;

	if (!user_read_access_begin(tables, guard->bytes))
		return false;
	do {
		u64 entry = guard->root, slot;
		unsigned int shift;

#pragma GCC unroll 4
		for (shift = 39; shift >= PAGE_SHIFT; shift -= 9) {
			slot = ((entry & XOS_ENTRY_ADDRESS) - guard->physical) & XOS_TABLES_MASK;
			if (slot >= guard->bytes)
				goto out;
			slot += (at >> shift) % PTRS_PER_PTE * sizeof(u64);
			unsafe_get_user(entry, (const u64 __user *)(tables + slot), out);
			if (shift == PAGE_SHIFT)
				break;
			if ((entry & (_PAGE_PRESENT | _PAGE_PSE)) != _PAGE_PRESENT)
				break;
		}
		if ((entry & wanted) != wanted)
			goto out;
		at = (at | (BIT_ULL(shift) - 1)) + 1;
		/* The next pages in the same table. */
		while (at < end && shift == PAGE_SHIFT && (slot += sizeof(u64)) & ~PAGE_MASK) {
			unsafe_get_user(entry, (const u64 __user *)(tables + slot), out);
			if ((entry & wanted) != wanted)
				goto out;
			at += PAGE_SIZE;
		}
	} while (at < end);
	allowed = true;
out:
	user_read_access_end();
	return allowed;
}

static __always_inline bool xos_may_touch(const struct xos_guarded *guard, u64 at, u64 bytes,
					  bool write)
{
	/* With xos_ioctl_guard(). */
	const u64 length = smp_load_acquire(&guard->length);
	const u64 offset = at - guard->begin;

	if (offset >= length)
		return true;
	if (unlikely(bytes > XOS_LOOK_BYTES || bytes > length - offset))
		return false;
	return xos_walk(guard, at, bytes, write);
}

static bool xos_may_touch_buffers(const struct xos_guarded *guard, u64 array, u64 count, bool write)
{
	u64 buffer[2];	/* struct iovec */
	u64 i;

	if (count > XOS_LOOK_ELEMENTS ||
	    !xos_may_touch(guard, array, count * sizeof(buffer), false))
		return false;
	for (i = 0; i < count; i++) {
		if (!xos_fetch(buffer, u64_to_user_ptr(array + i * sizeof(buffer)), 2) ||
		    !xos_may_touch(guard, buffer[0], buffer[1], write))
			return false;
	}
	return true;
}

static bool xos_may_touch_message(const struct xos_guarded *guard, u64 at, bool write)
{
	/* Without the flags, which only come back. */
	struct {
		u64 name;
		u32 name_length, padding;
		u64 buffers, count, control, control_length;
	} m;

	BUILD_BUG_ON(offsetof(typeof(m), control_length) !=
		     offsetof(struct user_msghdr, msg_controllen));
	return xos_may_touch(guard, at, sizeof(struct user_msghdr), write) &&
	       xos_fetch((u64 *)&m, u64_to_user_ptr(at), sizeof(m) / sizeof(u64)) &&
	       xos_may_touch(guard, m.name, m.name_length, write) &&
	       xos_may_touch(guard, m.control, m.control_length, write) &&
	       xos_may_touch_buffers(guard, m.buffers, m.count, write);
}

static bool xos_may_touch_messages(const struct xos_guarded *guard, u64 at, u64 count, bool write)
{
	u64 i;

	if (count > XOS_LOOK_ELEMENTS)
		return false;
	for (i = 0; i < count; i++, at += sizeof(struct mmsghdr)) {
		/* The length of each is written. */
		if (!xos_may_touch(guard, at, sizeof(struct mmsghdr), true) ||
		    !xos_may_touch_message(guard, at, write))
			return false;
	}
	return true;
}

/* The file of a process's memory shows what Linux has there, and must be told of first. */
static bool xos_may_open(const struct xos_guarded *guard, u64 path)
{
	static const char name[] = "/mem";
	u32 end = 0;
	long length;

	if (!READ_ONCE(guard->length))
		return true;
	if (!xos_may_touch(guard, path, 1, false))
		return false;
	length = strnlen_user(u64_to_user_ptr(path), PATH_MAX);
	if (length < (long)sizeof(name) || length > PATH_MAX)
		return length > 0 && length <= PATH_MAX;
	return !get_user(end, (u32 __user *)u64_to_user_ptr(path + length - sizeof(name))) &&
	       memcmp(&end, name, sizeof(end));
}

/* Whether the descriptor is the program's, and not one of those that it keeps from its calls. */
static bool xos_may_name(const struct xos_cell *cell, u32 descriptor)
{
	u64 word;

	if (!cell->descriptors || descriptor >= XOS_DESCRIPTORS)
		return true;
	descriptor = array_index_nospec(descriptor, XOS_DESCRIPTORS);
	return xos_fetch(&word, &cell->descriptors[descriptor / 64], 1) &&
	       !(word & BIT_ULL(descriptor % 64));
}

/*
 * The argument at `a`, and with some looks the one beside it: see xos_are_sound(). A length of 0
 * stands for a byte, so that user space sees to it, too.
 */
static bool xos_look(const struct xos_cell *cell, unsigned int look, const u64 *a)
{
	const struct xos_guarded *guard = &cell->guard;
	const bool write = look & 1;

	if (look == XOS_LOOK_DESCRIPTOR)
		return xos_may_name(cell, *a);
	if (look == XOS_LOOK_OPENED)
		return xos_may_open(guard, *a);
	if (look < XOS_LOOK_NEXT)
		return xos_may_touch(guard, *a, 1, write);
	if (look < XOS_LOOK_PREVIOUS)
		return xos_may_touch(guard, *a, a[1], write);
	if (look < XOS_LOOK_FUTEX)
		return xos_may_touch(guard, *a, a[-1], write);
	if (look == XOS_LOOK_FUTEX)
		return xos_may_touch(guard, *a, 1, !(a[1] & FUTEX_PRIVATE_FLAG));
	if (!READ_ONCE(guard->length))
		return true;
	if (look < XOS_LOOK_MESSAGE)
		return xos_may_touch_buffers(guard, *a, a[1], write);
	if (look < XOS_LOOK_MESSAGES)
		return xos_may_touch_message(guard, *a, write);
	return xos_may_touch_messages(guard, *a, a[1], write);
}

/*
 * Page faults are not served meanwhile: whoever serves them in user space may be waiting for the
 * SRCU read side that the caller holds.
 */
static noinline bool xos_looks_well(const struct xos_cell *cell, const struct xos_call *call,
				    u32 looks)
{
	const unsigned int mask = BIT(XOS_LOOK_BITS) - 1;
	const u64 *a = call->arguments;
	bool well = true;

	pagefault_disable();
	for (; looks && well; looks >>= XOS_LOOK_BITS, a++)
		well = !(looks & mask) || xos_look(cell, looks & mask, a);
	pagefault_enable();
	return well;
}

/* Whether the call may be made; else why not. */
static __always_inline bool xos_may_make(const struct xos_cell *cell, const struct xos_call *call,
					 enum xos_punt *why)
{
	u32 looks;

	*why = XOS_PUNT_CALL;
	if (call->number >= XOS_CALLS)
		return false;
	looks = cell->calls[array_index_nospec(call->number, XOS_CALLS)];
	if (!looks)
		return false;
	/* An execute-only mapping is made by way of PKRU, which is the guest's here. */
	if (unlikely(call->arguments[2] == PROT_EXEC) &&
	    (call->number == __NR_mmap || call->number == __NR_mprotect))
		return false;
	*why = XOS_PUNT_LOOK;
	looks &= ~XOS_CALL_MADE;
	return !looks || xos_looks_well(cell, call, looks);
}

static bool xos_fetch_call(struct xos_call *to, const struct xos_call __user *from)
{
	return xos_fetch((u64 *)to, (const u64 __user *)from,
			 offsetof(struct xos_call, result) / sizeof(u64));
}

/*
 * A call may sleep for ever, and whoever changes the VM's memory slots or buses waits for the SRCU
 * read side. Once it has been left, the bus that is calling us may be gone: the doorbell must then
 * be reported as answered, upon which KVM does not look at the bus again. And with the bus our
 * device may go, if KVM lacks the memory for a smaller one: the file keeps the cell.
 */
static void xos_leave_srcu(struct xos_cell *cell, struct kvm_vcpu *vcpu)
{
	if (vcpu) {
		get_file(cell->file);
		__acquire(srcu);	/* KVM's, for sparse */
		kvm_vcpu_srcu_read_unlock(vcpu);
	}
}

/* Nothing of the cell may be touched from here on. */
static void xos_enter_srcu(struct xos_cell *cell, struct kvm_vcpu *vcpu)
{
	if (vcpu) {
		kvm_vcpu_srcu_read_lock(vcpu);
		__release(srcu);
		fput(cell->file);
	}
}

/* The frame's result; -1: none of the calls was begun. */
static long xos_make_vector(struct xos_cell *cell, struct xos_state *state, struct kvm_vcpu *vcpu,
			    struct xos_call __user *at, u64 count, u64 flags, enum xos_punt *why)
{
	struct xos_call call = {};
	long made = -1;

	while (count && xos_fetch_call(&call, at) && !xos_watched() &&
	       xos_may_make(cell, &call, why)) {
		if (made < 0) {
			made = 0;
			state->statistics.vectors++;
			xos_leave_srcu(cell, vcpu);
		}
		call.result = xos_make(state, &call);
		if (put_user(call.result, &at->result))
			count = 1;	/* made, but it cannot be told what came of it */
		else if (unlikely(xos_is_restart(call.result)))
			break;
		made++;
		at++;
		count--;
		if (call.result < 0 && (flags & XOS_VECTOR_STOP_AT_ERROR))
			break;
		/* A signal, a deferred close, another thread's turn: they come first. */
		if (__xfer_to_guest_mode_work_pending())
			break;
	}
	if (made < 0)
		return made;
	xos_enter_srcu(cell, vcpu);
	return xos_is_restart(call.result) ? made | XOS_VECTOR_INTERRUPTED : made;
}

/* The doorbell: true when it has been answered, false when user space is to do so. */
static bool xos_ring(struct xos_cell *cell, struct xos_state *state, struct kvm_vcpu *vcpu)
{
	struct xos_frame __user *to = READ_ONCE(state->frame);
	enum xos_punt why = XOS_PUNT_WATCHED;
	struct xos_frame frame;
	struct xos_call *call = &frame.call;
	long result;

	if (unlikely(xos_watched() || (vcpu && vcpu->sigset_active)))
		goto punt;
	why = XOS_PUNT_SIGNAL;
	if (unlikely(signal_pending(current)))
		goto punt;
	why = XOS_PUNT_FRAME;
	if (unlikely(!xos_fetch((u64 *)&frame, (u64 __user *)to,
				offsetof(struct xos_frame, call.result) / sizeof(u64))))
		goto punt;
	why = XOS_PUNT_GATE;
	if (unlikely(frame.gate))
		goto punt;
	if (unlikely(call->number == XOS_NR_VECTOR)) {
		why = XOS_PUNT_FRAME;
		if (call->arguments[1] > XOS_VECTOR_MAX ||
		    (call->arguments[2] & ~(u64)XOS_VECTOR_STOP_AT_ERROR))
			goto punt;
		why = XOS_PUNT_CALL;
		result = xos_make_vector(cell, state, vcpu, u64_to_user_ptr(call->arguments[0]),
					 call->arguments[1], call->arguments[2], &why);
		if (result < 0)
			goto punt;
	} else {
		if (unlikely(!xos_may_make(cell, call, &why)))
			goto punt;
		xos_leave_srcu(cell, vcpu);
		result = xos_make(state, call);
		xos_enter_srcu(cell, vcpu);
	}
	/* Should the frame be gone, the guest faults on it next. */
	if (user_write_access_begin(&to->call.result, sizeof(to->call.result))) {
		unsafe_put_user(result, &to->call.result, gone);
gone:
		user_write_access_end();
	}
	return true;
punt:
	state->statistics.punted[why]++;
	return false;
}

static int xos_bus_write(struct kvm_vcpu *vcpu, struct kvm_io_device *device, gpa_t address,
			 int bytes, const void *value)
{
	struct xos_cell *cell = container_of(device, struct xos_cell, device);
	struct xos_state *state;

	if (address != cell->port || bytes != sizeof(u32) || current->mm != cell->mm)
		return -EOPNOTSUPP;
	state = xos_find(cell, vcpu->vcpu_id);
	return state && xos_ring(cell, state, vcpu) ? 0 : -EOPNOTSUPP;
}

/* The VM is gone. Through its file the cell goes, too, and then the reference to this module. */
static void xos_bus_destroy(struct kvm_io_device *device)
{
	fput(container_of(device, struct xos_cell, device)->file);
}

static const struct kvm_io_device_ops xos_bus_ops = {
	.write = xos_bus_write,
	.destructor = xos_bus_destroy,
};

static DEFINE_MUTEX(xos_symbols_lock);
static bool xos_symbols_known, xos_bus_found;

/* Only while a file of KVM's is held, so that KVM stays loaded. */
static bool xos_find_bus(void)
{
	unsigned long bus, is_vm;

	mutex_lock(&xos_symbols_lock);
	if (!xos_symbols_known) {
		bus = static_call(xos_lookup)("kvm_io_bus_register_dev");
		is_vm = static_call(xos_lookup)("file_is_kvm");
		xos_bus_found = bus && is_vm;
		if (xos_bus_found) {
			static_call_update(xos_register_device, (void *)bus);
			static_call_update(xos_is_vm, (void *)is_vm);
		}
		xos_symbols_known = true;
	}
	mutex_unlock(&xos_symbols_lock);
	return xos_bus_found;
}

/* KVM may come back at another address. */
static int xos_module_event(struct notifier_block *block, unsigned long event, void *data)
{
	struct module *module = data;

	if (event == MODULE_STATE_GOING && !strcmp(module->name, "kvm")) {
		mutex_lock(&xos_symbols_lock);
		xos_symbols_known = false;
		mutex_unlock(&xos_symbols_lock);
	}
	return NOTIFY_DONE;
}

static struct notifier_block xos_module_notifier = { .notifier_call = xos_module_event };

static int xos_register(struct xos_cell *cell, struct file *vm)
{
	struct kvm *kvm;
	int error;

	if (!static_call(xos_is_vm)(vm))
		return -EINVAL;
	kvm = vm->private_data;
	if (kvm->mm != current->mm)
		return -EPERM;
	kvm_iodevice_init(&cell->device, &xos_bus_ops);
	get_file(cell->file);
	mutex_lock(&kvm->slots_lock);
	error = static_call(xos_register_device)(kvm, KVM_PIO_BUS, cell->port, sizeof(u32),
						 &cell->device);
	mutex_unlock(&kvm->slots_lock);
	if (error)
		fput(cell->file);
	return error;
}

/* Each look has the arguments that it needs. */
static bool xos_are_sound(u32 looks)
{
	const u32 first = looks % BIT(XOS_LOOK_BITS);
	const u32 sixth = looks >> 5 * XOS_LOOK_BITS;

	return first / 2 * 2 != XOS_LOOK_PREVIOUS &&
	       (sixth < XOS_LOOK_NEXT || sixth / 2 * 2 == XOS_LOOK_PREVIOUS ||
		sixth == XOS_LOOK_DESCRIPTOR);
}

static int xos_take_calls(struct xos_cell *cell, const struct xos_attach *a)
{
	unsigned int i;

	if (!access_ok(u64_to_user_ptr(a->descriptors), XOS_DESCRIPTORS / 8))
		return -EINVAL;
	cell->descriptors = u64_to_user_ptr(a->descriptors);
	if (copy_from_user(cell->calls, u64_to_user_ptr(a->calls), sizeof(cell->calls)))
		return -EFAULT;
	for (i = 0; i < XOS_CALLS; i++) {
		u32 *call = &cell->calls[i];

		if (*call && (!(*call & XOS_CALL_MADE) || !xos_are_sound(*call & ~XOS_CALL_MADE)))
			return -EINVAL;
		if (!test_bit(i, xos_allowed_map))
			*call = 0;
	}
	return 0;
}

static int xos_prepare(struct xos_cell *cell, const struct xos_attach *a, struct file *vm)
{
	struct module *owner = vm->f_op->owner;
	int error = 0;

	if (cell->mm)
		return -EBUSY;
	if (owner && strncmp(owner->name, "kvm", 3))
		return -EINVAL;
	error = xos_take_calls(cell, a);
	if (error)
		return error;
	cell->max_vcpus = 0;
	kvfree(cell->vcpus);
	cell->vcpus = kvcalloc(a->max_vcpus, sizeof(*cell->vcpus), GFP_KERNEL_ACCOUNT);
	if (!cell->vcpus)
		return -ENOMEM;
	cell->max_vcpus = a->max_vcpus;
	cell->port = a->port;
	cell->kvm_owner = owner;
	cell->features = !loop && xos_find_bus() ? XOS_FEATURE_BUS : 0;
	cell->mm = current->mm;
	mmgrab(cell->mm);
	if (cell->features & XOS_FEATURE_BUS)
		error = xos_register(cell, vm);
	if (error) {
		mmdrop(cell->mm);
		cell->mm = NULL;
	}
	return error;
}

static long xos_ioctl_attach(struct xos_cell *cell, const void __user *from)
{
	struct xos_attach a;
	struct file *vm;
	long error;

	if (copy_from_user(&a, from, sizeof(a)))
		return -EFAULT;
	if (a.abi_version != XOS_ABI_VERSION)
		return -EPROTO;
	if (!a.max_vcpus || a.max_vcpus > KVM_MAX_VCPU_IDS || a.port > U16_MAX)
		return -EINVAL;
	vm = fget(a.vm_fd);
	if (!vm)
		return -EBADF;
	mutex_lock(&cell->lock);
	error = xos_prepare(cell, &a, vm);
	mutex_unlock(&cell->lock);
	fput(vm);
	return error;
}

static long xos_ioctl_vcpu(struct xos_cell *cell, const void __user *from)
{
	struct xos_state *state;
	struct xos_vcpu v;
	long error = 0;

	if (copy_from_user(&v, from, sizeof(v)))
		return -EFAULT;
	mutex_lock(&cell->lock);
	if (!cell->mm || cell->mm != current->mm || v.id >= cell->max_vcpus || v.reserved) {
		error = -EINVAL;
	} else if (cell->vcpus[v.id]) {
		WRITE_ONCE(cell->vcpus[v.id]->frame, u64_to_user_ptr(v.frame));
	} else {
		state = kvzalloc(sizeof(*state), GFP_KERNEL_ACCOUNT);
		if (state) {
			state->frame = u64_to_user_ptr(v.frame);
			/* With xos_find(). */
			smp_store_release(&cell->vcpus[v.id], state);
		} else {
			error = -ENOMEM;
		}
	}
	mutex_unlock(&cell->lock);
	return error;
}

static int xos_guard(struct xos_guarded *guard, const struct xos_guard *g)
{
	if (!g->length) {
		WRITE_ONCE(guard->length, 0);
		return 0;
	}
	if (guard->bytes)
		return -EBUSY;
	if ((g->begin | g->length | g->root | g->tables | g->tables_physical | g->tables_length) &
	    ~PAGE_MASK || !g->tables_length || g->begin + g->length < g->begin ||
	    !access_ok(u64_to_user_ptr(g->tables), g->tables_length))
		return -EINVAL;
	guard->begin = g->begin;
	guard->root = g->root;
	guard->physical = g->tables_physical;
	guard->bytes = g->tables_length;
	guard->tables = u64_to_user_ptr(g->tables);
	/* With xos_may_touch(). */
	smp_store_release(&guard->length, g->length);
	return 0;
}

static long xos_ioctl_guard(struct xos_cell *cell, const void __user *from)
{
	struct xos_guard g;
	long error = -EINVAL;

	if (copy_from_user(&g, from, sizeof(g)))
		return -EFAULT;
	mutex_lock(&cell->lock);
	if (cell->mm && cell->mm == current->mm)
		error = xos_guard(&cell->guard, &g);
	mutex_unlock(&cell->lock);
	return error;
}

static bool xos_is_doorbell(const struct xos_cell *cell, const struct kvm_run __user *run)
{
	u32 reason, count;
	u16 port;
	u8 direction, size;

	return !get_user(reason, &run->exit_reason) && reason == KVM_EXIT_IO &&
	       !get_user(direction, &run->io.direction) && direction == KVM_EXIT_IO_OUT &&
	       !get_user(port, &run->io.port) && port == cell->port &&
	       !get_user(size, &run->io.size) && size == sizeof(u32) &&
	       !get_user(count, &run->io.count) && count == 1;
}

/* What kvm_run says is the program's own to write, and needs no trust: see the top of this file. */
static long xos_ioctl_run(struct xos_cell *cell, const void __user *from)
{
	struct xos_state *state;
	struct file *vcpu;
	struct xos_run r;
	long result;

	if (copy_from_user(&r, from, sizeof(r)))
		return -EFAULT;
	/* Pairs with nothing to wait for: a program that attaches meanwhile may see either. */
	if (!READ_ONCE(cell->mm) || cell->mm != current->mm || cell->features & XOS_FEATURE_BUS)
		return -EINVAL;
	state = xos_find(cell, r.id);
	if (!state)
		return -EINVAL;
	vcpu = fget(r.vcpu_fd);
	if (!vcpu)
		return -EBADF;
	result = -EINVAL;
	if (vcpu->f_op->owner == cell->kvm_owner && vcpu->f_op->unlocked_ioctl)
		result = security_file_ioctl(vcpu, KVM_RUN, 0);
	while (!result) {
		result = vcpu->f_op->unlocked_ioctl(vcpu, KVM_RUN, 0);
		if (result || !xos_is_doorbell(cell, u64_to_user_ptr(r.run)) ||
		    !xos_ring(cell, state, NULL))
			break;
	}
	fput(vcpu);
	return result;
}

static long xos_ioctl_statistics(struct xos_cell *cell, void __user *to)
{
	struct xos_statistics *sum = kzalloc(sizeof(*sum), GFP_KERNEL);
	const size_t words = sizeof(*sum) / sizeof(u64);
	long error;
	u32 i, k;

	if (!sum)
		return -ENOMEM;
	mutex_lock(&cell->lock);
	for (i = 0; i < cell->max_vcpus; i++) {
		for (k = 0; cell->vcpus[i] && k < words; k++)
			((u64 *)sum)[k] += READ_ONCE(((u64 *)&cell->vcpus[i]->statistics)[k]);
	}
	mutex_unlock(&cell->lock);
	sum->punted[XOS_PUNT_VCPU] += atomic64_read(&cell->strangers);
	error = copy_to_user(to, sum, sizeof(*sum)) ? -EFAULT : 0;
	kfree(sum);
	return error;
}

/* Appends the page at l->address; false when there is no room for an extent of its own. */
static bool xos_add_page(struct xos_extent *last, struct xos_layout *l, struct page *page)
{
	struct xos_extent __user *to = u64_to_user_ptr(l->extents);
	u64 physical = page_to_phys(page), address = l->address;
	int node = page_to_nid(page);

	if (l->count && last->node == node && last->address + last->bytes == address &&
	    last->physical + last->bytes == physical) {
		last->bytes += PAGE_SIZE;
		return !put_user(last->bytes, &to[l->count - 1].bytes);
	}
	if (l->count == l->capacity)
		return false;
	*last = (struct xos_extent){ address, PAGE_SIZE, physical, node };
	return !copy_to_user(&to[l->count++], last, sizeof(*last));
}

static long xos_ioctl_layout(void __user *argument)
{
	struct xos_extent last = {};
	struct page *pages[32];
	struct xos_layout l;
	bool room = true;
	int got, i;

	if (!capable(CAP_SYS_ADMIN))
		return -EPERM;
	if (copy_from_user(&l, argument, sizeof(l)))
		return -EFAULT;
	if ((l.address | l.bytes) & ~PAGE_MASK || !l.capacity ||
	    !access_ok(u64_to_user_ptr(l.address), l.bytes))
		return -EINVAL;
	l.count = 0;
	while (l.bytes && room) {
		got = min_t(u64, l.bytes >> PAGE_SHIFT, ARRAY_SIZE(pages));
		got = get_user_pages_fast_only(l.address, got, 0, pages);
		for (i = 0; i < got; i++) {
			room = room && xos_add_page(&last, &l, pages[i]);
			put_page(pages[i]);
			if (room) {
				l.address += PAGE_SIZE;
				l.bytes -= PAGE_SIZE;
			}
		}
		if (got <= 0) {	/* a hole */
			l.address += PAGE_SIZE;
			l.bytes -= PAGE_SIZE;
		}
		if (signal_pending(current))
			break;
		cond_resched();
	}
	return copy_to_user(argument, &l, sizeof(l)) ? -EFAULT : 0;
}

static long xos_ioctl(struct file *file, unsigned int request, unsigned long argument)
{
	struct xos_cell *cell = file->private_data;
	void __user *user = (void __user *)argument;
	struct xos_info info = { XOS_ABI_VERSION, READ_ONCE(cell->features) };

	switch (request) {
	case XOS_IOC_INFO:
		return copy_to_user(user, &info, sizeof(info)) ? -EFAULT : 0;
	case XOS_IOC_ATTACH:
		return xos_ioctl_attach(cell, user);
	case XOS_IOC_VCPU:
		return xos_ioctl_vcpu(cell, user);
	case XOS_IOC_GUARD:
		return xos_ioctl_guard(cell, user);
	case XOS_IOC_RUN:
		return xos_ioctl_run(cell, user);
	case XOS_IOC_STATISTICS:
		return xos_ioctl_statistics(cell, user);
	case XOS_IOC_LAYOUT:
		return xos_ioctl_layout(user);
	}
	return -ENOTTY;
}

static int xos_open(struct inode *inode, struct file *file)
{
	int error = security_locked_down(LOCKDOWN_INTEGRITY_MAX);
	struct xos_cell *cell;

	if (error)
		return error;
	cell = kzalloc(sizeof(*cell), GFP_KERNEL_ACCOUNT);
	if (!cell)
		return -ENOMEM;
	mutex_init(&cell->lock);
	cell->file = file;
	file->private_data = cell;
	return 0;
}

static int xos_release(struct inode *inode, struct file *file)
{
	struct xos_cell *cell = file->private_data;
	u32 i;

	for (i = 0; i < cell->max_vcpus; i++)
		kvfree(cell->vcpus[i]);
	kvfree(cell->vcpus);
	if (cell->mm)
		mmdrop(cell->mm);
	kfree(cell);
	return 0;
}

static const struct file_operations xos_file_operations = {
	.owner = THIS_MODULE,
	.open = xos_open,
	.release = xos_release,
	.unlocked_ioctl = xos_ioctl,
};

static struct miscdevice xos_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "xos",
	.fops = &xos_file_operations,
	.mode = 0600,
};

/* The one function that a module can still learn the address of by name. */
static int __init xos_find_lookup(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name" };
	int error = register_kprobe(&probe);

	if (error)
		return error;
	static_call_update(xos_lookup, (void *)probe.addr);
	unregister_kprobe(&probe);
	return 0;
}

static int __init xos_init(void)
{
	unsigned long system_call;
	int error, i;

	error = security_locked_down(LOCKDOWN_INTEGRITY_MAX);
	if (error)
		return error;
	error = xos_find_lookup();
	system_call = static_call(xos_lookup)("x64_sys_call");
	if (!system_call) {
		pr_err("this kernel does not let x64_sys_call be found (%d)\n", error);
		return error ?: -ENOENT;
	}
	static_call_update(xos_system_call, (void *)system_call);
	xos_audit_rules = (const int *)static_call(xos_lookup)("audit_n_rules");
	for (i = 0; i < ARRAY_SIZE(xos_allowed); i++)
		__set_bit(xos_allowed[i], xos_allowed_map);
	error = register_module_notifier(&xos_module_notifier);
	if (error)
		return error;
	error = misc_register(&xos_device);
	if (error)
		unregister_module_notifier(&xos_module_notifier);
	return error;
}

static void __exit xos_exit(void)
{
	misc_deregister(&xos_device);
	unregister_module_notifier(&xos_module_notifier);
}

module_init(xos_init);
module_exit(xos_exit);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("System calls of a KVM guest, made for its own process inside KVM_RUN");
MODULE_VERSION("1");
