// The per-vCPU memory that GS points to inside the guest.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libxos/arch/guest_layout.h"
#include "libxos/arch/registers.hpp"

namespace xos::arch {

/// What Linux answers to a thread that asks who it is. A negative one is not known, and the call
/// leaves the guest (syscall/identity_calls_host.cpp).
struct thread_ids {
    static constexpr std::int64_t unknown = -1;
    /// Asked for once. The ids of users and groups become known when they are asked for again.
    static constexpr std::int64_t asked_once = -2;
    /// Linux may answer something else the next time.
    static constexpr std::int64_t not_constant = -3;

    std::int64_t process = unknown, thread = unknown;
    std::int64_t user = unknown, effective_user = unknown;
    std::int64_t group = unknown, effective_group = unknown;

    void forget_credentials() { user = effective_user = group = effective_group = unknown; }
};

/// In `ring3` a vCPU has two of these: one for kernel-side code (GS after SWAPGS, out of the
/// application's reach) and one for code at CPL 3. In the flat modes they are the same.
struct guest_area {
    guest_area* self;
    std::uint64_t fs_base;    ///< loaded on entry, stored on leave
    std::uint64_t in_kernel;  ///< kernel-side C++ is running: no signal may be delivered here
    std::uint64_t trap_stack_base, trap_stack_size, trap_stack_top;
    std::uint64_t
        syscall_stack_top;  ///< local system calls run on `syscall_stack_size` bytes below it
    // The fields from here to `result` are the frame that the kernel module reads
    // (kmod/xos_uapi.h).
    std::uint64_t pending;  ///< host → guest: give way at the next return to the application
    // The forwarded call: what the LSTAR stub saved, and the result.
    std::uint64_t number, arguments[6];
    std::uint64_t result;
    std::uint64_t rip, flags, rsp;
    trap_frame* frame;           ///< of a trap or poll exit
    std::uint64_t trap_message;  ///< trap_request out, trap_answer back
    std::uint64_t scratch;
    std::uint64_t leave_rsp;
    std::uint64_t interrupted_kernel;  ///< of a trap exit: kernel-side code caused the exception
    void (*host_call)(void*);
    void* host_call_argument;
    /// 0 while a forwarded call runs: its stub flushes before the application continues, so nobody
    /// needs to interrupt this vCPU to make it forget a translation.
    std::uint64_t holds_translations;
    std::uint64_t flush_wanted;  ///< another vCPU has taken permissions away
    std::uint64_t root;          ///< what CR3 holds
    std::uint64_t is_ring3;      ///< set in the kernel's area of a vCPU in ring3
    std::uint64_t space;         ///< 0: the main address space
    std::uint64_t vcpu;          ///< its number
    thread_ids ids;              ///< the thread's own
    // Counters. Plain increments suffice: only this vCPU writes them.
    alignas(64) std::uint64_t
        local_counts[XOS_SYSCALL_TABLE];  ///< system calls answered in the guest
    std::uint64_t exceptions[32];
    /// The number of flushes when this vCPU last left each address space.
    static constexpr unsigned max_spaces = 16;
    std::uint64_t flushes_seen[max_spaces];
    const void* recent_view;  ///< a hint: the view that the last page edit used
};

/// guest → host, in `trap_request` of a trap exit.
enum trap_request : std::uint64_t {
    trap_request_memory,  ///< perhaps only a slot is missing; else raise it if no handler is left
                          ///< to ask
    trap_request_raise,   ///< no handler takes it: raise Linux's signal
    trap_request_kernel_fault,  ///< kernel-side code faulted: the cell cannot go on
};
/// host → guest.
enum trap_answer : std::uint64_t {
    trap_answer_retry,    ///< fixed: return to the instruction
    trap_answer_handlers  ///< no slot was missing: call the vector's handlers
};

/// Set in trap_frame::vector on the way to the dispatcher: Linux refused the access, not the
/// processor.
inline constexpr std::uint64_t vector_from_linux = 0x100;

static_assert(offsetof(guest_area, pending) == XOS_AREA_PENDING);
static_assert(offsetof(guest_area, trap_stack_base) == XOS_AREA_TRAP_BASE);
static_assert(offsetof(guest_area, trap_stack_size) == XOS_AREA_TRAP_SIZE);
static_assert(offsetof(guest_area, trap_stack_top) == XOS_AREA_TRAP_TOP);
static_assert(offsetof(guest_area, syscall_stack_top) == XOS_AREA_SYSCALL_STACK);
static_assert(offsetof(guest_area, fs_base) == XOS_AREA_FS_BASE);
static_assert(offsetof(guest_area, number) == XOS_AREA_NUMBER);
static_assert(offsetof(guest_area, arguments) == XOS_AREA_ARGUMENTS);
static_assert(offsetof(guest_area, result) == XOS_AREA_RESULT);
static_assert(offsetof(guest_area, rip) == XOS_AREA_RIP);
static_assert(offsetof(guest_area, flags) == XOS_AREA_FLAGS);
static_assert(offsetof(guest_area, rsp) == XOS_AREA_RSP);
static_assert(offsetof(guest_area, frame) == XOS_AREA_FRAME);
static_assert(offsetof(guest_area, scratch) == XOS_AREA_SCRATCH);
static_assert(offsetof(guest_area, leave_rsp) == XOS_AREA_LEAVE_RSP);
static_assert(offsetof(guest_area, flush_wanted) == XOS_AREA_FLUSH_WANTED);
static_assert(offsetof(guest_area, is_ring3) == XOS_AREA_IS_RING3);
static_assert(offsetof(guest_area, ids.process) == XOS_AREA_PROCESS_ID);
static_assert(offsetof(guest_area, ids.thread) == XOS_AREA_THREAD_ID);
static_assert(offsetof(guest_area, ids.user) == XOS_AREA_USER);
static_assert(offsetof(guest_area, ids.effective_user) == XOS_AREA_EFFECTIVE_USER);
static_assert(offsetof(guest_area, ids.group) == XOS_AREA_GROUP);
static_assert(offsetof(guest_area, ids.effective_group) == XOS_AREA_EFFECTIVE_GROUP);
static_assert(offsetof(guest_area, local_counts) == XOS_AREA_LOCAL_COUNTS);
static_assert(offsetof(trap_frame, rax) == XOS_FRAME_RAX);
static_assert(offsetof(trap_frame, vector) == XOS_FRAME_VECTOR);
static_assert(offsetof(trap_frame, rip) == XOS_FRAME_RIP);
static_assert(offsetof(trap_frame, rsp) == XOS_FRAME_RSP);

/// The area of the vCPU that runs this code. Only inside the guest.
inline guest_area* current_area() {
    guest_area* area;
    asm("movq %%gs:0, %0" : "=r"(area));
    return area;
}

inline constexpr std::uint64_t syscall_stack_size = 16384;

inline bool on_syscall_stack(const guest_area& area, std::uint64_t rsp) {
    return area.syscall_stack_top - rsp < syscall_stack_size;
}

/// Gives way to a pending signal in the middle of ordinary code.
inline void poll_guest() {
    asm volatile("outl %%eax, %0" : : "i"(XOS_PORT_POLL), "a"(0) : "memory");
}

/// Kernel side: runs `fn(argument)` in host mode, on the loop stack. No signal is delivered
/// meanwhile, but one may interrupt the system calls that `fn` makes.
inline void call_host_from_kernel(void (*fn)(void*), void* argument) {
    guest_area& area = *current_area();
    area.host_call = fn;
    area.host_call_argument = argument;
    asm volatile("outl %%eax, %0" : : "i"(XOS_PORT_KERNEL_CALL), "a"(0) : "memory");
}

/// The same for a callable, which returns results through its captures.
template <class F>
void in_host_from_kernel(F f) {
    call_host_from_kernel([](void* argument) { (*static_cast<F*>(argument))(); }, &f);
}

}  // namespace xos::arch
