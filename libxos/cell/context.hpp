// One vCPU with everything a thread needs to run on it.
//
// Contexts are pooled, because KVM cannot destroy a vCPU: a thread takes one to enter and gives it
// back when it leaves or ends. They lie in one array with a power-of-two stride, each followed by
// its run loop's stack, so that the signal trampoline can tell from GS alone whether a thread is in
// the cell.
#pragma once

#include <xos/stats.hpp>

#include "libxos/arch/cpu.hpp"
#include "libxos/arch/guest_area.hpp"
#include "libxos/arch/segments.hpp"
#include "libxos/cell/signal_table.hpp"
#include "libxos/kvm/vcpu.hpp"

namespace xos::cell {

/// Where the guest stopped, which tells where the application's registers are.
enum class position : std::uint8_t {
    application,  ///< in the vCPU
    system_call,  ///< at the LSTAR stub's OUT; the result is in the area
    taken_back,   ///< there too, but the call has not happened and must be made again
    local_call,   ///< at the LSTAR stub's poll, after a local call
    trap,         ///< in the dispatcher, at a request to the host; the frame is on the trap stack
    trap_poll,    ///< after the dispatcher, about to return to the frame
    after_out,    ///< after an OUT of libxos's in ordinary code, which has had its effect
    kernel_side,  ///< at an OUT of kernel-side code, which has more to do
    unknown,      ///< KVM_RUN was interrupted at any point
};

/// A signal that a handler left for the run loop.
struct queued_signal {
    int number;
    kernel_siginfo info;
};

/// A page of the arena that Linux refuses for a moment, as the guest's tables do. 0: none.
struct concealed_page {
    std::uint64_t page = 0;
    bool was_mapped = false;
};

struct last_exit {
    std::uint32_t reason, port;
    std::int64_t result;
    std::uint64_t detail;
};

struct alignas(64) context {
    context* self;
    std::uint64_t loop_stack;       ///< its top
    std::uint64_t application_rsp;  ///< the stack pointer in enter(), for the first resume
    std::uint32_t signals_pending;  ///< written by the trampoline
    std::uint32_t padding0;
    std::uint32_t hopping;  ///< the next signal is the kernel's response to a hop
    std::uint32_t busy;     ///< the context is taken; the thread's last store clears it

    unsigned id;
    std::uint32_t thread_id;
    std::uint32_t processor_number;  ///< what the guest believes: CPU | node << 12
    arch::descriptor_tables* tables;
    kvm::vcpu cpu;
    arch::guest_area* area;         ///< what code at the application's privilege sees
    arch::guest_area* kernel_area;  ///< ring3: what the stubs at CPL 0 see; else the same
    position where;
    bool at_cpl0;             ///< ring3: the vCPU stopped in kernel-side code
    bool gs_unswapped;        ///< ring3: at CPL 0, but before SWAPGS or after the second one
    bool shares_memory_only;  ///< a vfork child: exit must not clean up the thread
    bool handlers_cleared;    ///< CLONE_CLEAR_SIGHAND has removed them, including libxos's own

    // A forked child before it has a VM (syscall/native_child_host.cpp).
    bool native;
    std::uint8_t blocks_calls;  ///< Linux reads it at every system call
    unsigned native_calls;
    std::uint64_t native_until;  ///< CLOCK_MONOTONIC, nanoseconds

    // Signals (trap/).
    signal_table* actions;      ///< the process's, or a vfork child's own
    std::uint64_t signal_mask;  ///< the application's, while a hop has another one in the kernel
    kernel_stack alternate;  ///< the application's sigaltstack; the kernel's is off in the run loop
    bool stepping;           ///< the hop executes one instruction
    int delivering;          ///< the signal that the hop is for, or 0
    std::uint64_t probed;    ///< the breakpoint that the hop executes, or 0
    enum class holding : std::uint8_t { nothing, shared, exclusive } table_lock;
    bool private_alternate;  ///< the frame of the step goes to libxos's own stack
    bool pass_to_linux;      ///< in-guest handlers have declined this fault
    concealed_page concealed;  ///< the page concealed for the step
    /// At most one waits: the kernel's mask is full meanwhile, so the kernel keeps the others.
    queued_signal waiting;
    queued_signal held;            ///< sent and blocked, but its number is unblocked for a step
    std::uint64_t repeated_fault;  ///< fault address and count, to detect endless retries
    unsigned repeats;
    std::uint64_t host_gs_base;  ///< restored by leave()

    /// The memory for execve's own argument vectors. It is kept: the child of a vfork execs in its
    /// parent's memory and could not free it.
    std::uint64_t exec_scratch, exec_scratch_size;

    // Statistics: only this thread writes them.
    std::uint64_t entries, runs, hops, signals;
    std::uint64_t exits[static_cast<unsigned>(exit_kind::count)];
    std::uint64_t forwarded[XOS_SYSCALL_TABLE], emulated[XOS_SYSCALL_TABLE];
    last_exit recent[8];
    unsigned recent_next;

    arch::general_registers saved;  ///< a private copy: a forking parent shares kvm_run
    signal_table own_actions;
    alignas(64) kvm::xsave_area fpu;
    alignas(64) hop_frame hop;
    alignas(64) std::uint8_t step_stack[16384];

    /// Makes KVM_RUN return at once, or not. In a forked child the page is still the parent's.
    void stop_at_once(bool stop) {
        if (cpu.exists()) cpu.run_page().immediate_exit = stop;
    }
    void clear_statistics();
    void count(exit_kind kind) { exits[static_cast<unsigned>(kind)]++; }
    void note_exit(std::uint32_t reason, std::uint32_t port, std::int64_t result,
                   std::uint64_t detail) {
        recent[recent_next++ % 8] = {reason, port, result, detail};
    }
};

static_assert(offsetof(context, loop_stack) == XOS_CONTEXT_LOOP_STACK);
static_assert(offsetof(context, application_rsp) == XOS_CONTEXT_APPLICATION_RSP);
static_assert(offsetof(context, signals_pending) == XOS_CONTEXT_SIGNALS_PENDING);
static_assert(offsetof(context, hopping) == XOS_CONTEXT_HOPPING);
static_assert(sizeof(context) <= XOS_CONTEXT_STRIDE / 2, "the other half is the run loop's stack");

}  // namespace xos::cell
