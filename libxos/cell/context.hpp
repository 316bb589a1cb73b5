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

namespace xos::loops {
struct turn;
}

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
    int number = 0;
    kernel_siginfo info = {};
};

/// A page of the arena that Linux refuses for a moment, as the guest's tables do. 0: none.
struct concealed_page {
    std::uint64_t page = 0;
    bool was_mapped = false;
};

// What belongs to the thread. The initial values are those of a thread that takes a context.

/// Written by whoever starts the thread: enter_guest(), or the call that makes it.
struct thread_state {
    std::uint64_t application_rsp = 0;  ///< the stack pointer in enter(), for the first resume
    std::uint64_t host_gs_base = 0;     ///< restored when the thread leaves
    std::uint32_t id = 0;
    bool shares_memory_only = false;  ///< a vfork child: exit must not clean up the thread
    /// CLONE_CLEAR_SIGHAND has removed them, including libxos's own.
    bool handlers_cleared = false;
};

/// The thread's event loop, if it has one (loops/).
struct loop_state {
    loops::turn* turn = nullptr;
    int timer = -1;                ///< the kernel's number, or -1
    bool timer_runs = false;       ///< it sends its signal again and again
    bool seen_by_timer = false;    ///< its signal has come during the present turn
    std::uint32_t timer_came = 0;  ///< written by the trampoline: its signal has come
};

/// The application's signals (trap/).
struct signal_state {
    std::uint32_t pending = 0;        ///< written by the trampoline: one waits
    signal_table* actions = nullptr;  ///< the process's, or a vfork child's own
    std::uint64_t mask = 0;  ///< the application's, while a hop has another one in the kernel
    /// The application's sigaltstack; the kernel's is off in the run loop.
    kernel_stack alternate = {0, ss::disable, 0, 0};
    /// At most one waits: the kernel's mask is full meanwhile, so the kernel keeps the others.
    queued_signal waiting = {};
};

enum class table_hold : std::uint8_t { nothing, shared, exclusive };

/// A hop (trap/): what it is for, and what the landing must undo.
struct hop_state {
    std::uint32_t in_flight = 0;     ///< the next signal is the kernel's response to it
    int delivering = 0;              ///< the signal that it is for, or 0
    std::uint64_t probed = 0;        ///< the breakpoint that it executes, or 0
    bool stepping = false;           ///< it executes one instruction
    bool private_alternate = false;  ///< the frame of the step goes to libxos's own stack
    bool pass_to_linux = false;      ///< in-guest handlers have declined this fault
    table_hold table_lock = table_hold::nothing;
    concealed_page concealed;  ///< the page concealed for the step
    queued_signal held;        ///< sent and blocked, but its number is unblocked for a step
};

/// A forked child before it has a VM (syscall/native_child_host.cpp).
struct native_state {
    bool running = false;
    std::uint8_t blocks_calls = 0;  ///< Linux reads it at every system call
    unsigned calls = 0;
    std::uint64_t until = 0;  ///< CLOCK_MONOTONIC, nanoseconds
};

/// The fault that came last, to detect endless retries.
struct repeated_fault {
    std::uint64_t address = 0;
    unsigned count = 0;
};

// What belongs to the vCPU. A thread that ends leaves it where it stopped.

struct stop_state {
    position where = position::application;
    bool at_cpl0 = false;       ///< ring3: the vCPU stopped in kernel-side code
    bool gs_unswapped = false;  ///< ring3: at CPL 0, but before SWAPGS or after the second one
};

// What all threads that had the context add to.

struct run_statistics {
    std::uint64_t entries, runs, hops, signals;
    std::uint64_t vector_exits, vector_calls;
    std::uint64_t exits[static_cast<unsigned>(exit_kind::count)];
    std::uint64_t forwarded[XOS_SYSCALL_TABLE], emulated[XOS_SYSCALL_TABLE];
};

struct last_exit {
    std::uint32_t reason, port;
    std::int64_t result;
    std::uint64_t detail;
};
struct recent_exits {
    last_exit exits[8];
    unsigned next;
};

/// The memory for execve's own argument vectors. It is kept: the child of a vfork execs in its
/// parent's memory and could not free it.
struct exec_memory {
    std::uint64_t begin, size;
};

struct alignas(64) context {
    // The context's own, made once by make_context().
    context* self;
    std::uint64_t loop_stack;  ///< its top
    unsigned id;
    std::uint32_t busy;  ///< the context is taken; the thread's last store clears it
    arch::descriptor_tables* tables;
    arch::guest_area* area;         ///< what code at the application's privilege sees
    arch::guest_area* kernel_area;  ///< ring3: what the stubs at CPL 0 see; else the same

    // The thread's: begin_thread() resets it.
    thread_state thread;
    signal_state signals;
    hop_state hop;
    native_state native;
    loop_state loop;
    repeated_fault repeats;

    // The vCPU's: remake_context() replaces it in a forked child.
    kvm::vcpu cpu;
    stop_state stop;
    std::uint32_t processor_number;  ///< what the guest believes: CPU | node << 12

    // Of all threads that had the context. A forked child starts with cleared statistics.
    run_statistics statistics;
    recent_exits recent;
    exec_memory exec_scratch;

    // Buffers without a state: each is written before it is read.
    arch::general_registers saved;  ///< a private copy: a forking parent shares kvm_run
    signal_table own_actions;       ///< a vfork child's signals.actions
    alignas(64) kvm::xsave_area fpu;
    alignas(64) hop_frame frame;  ///< the hop's
    alignas(64) std::uint8_t step_stack[16384];

    void begin_thread(signal_table& actions) {
        thread = {};
        signals = {.actions = &actions};
        hop = {};
        native = {};
        loop = {};
        repeats = {};
    }
    /// Makes KVM_RUN return at once, or not. In a forked child the page is still the parent's.
    void stop_at_once(bool stop) {
        if (cpu.exists()) cpu.run_page().immediate_exit = stop;
    }
    void clear_statistics();
    void count(exit_kind kind) { statistics.exits[static_cast<unsigned>(kind)]++; }
    void note_exit(std::uint32_t reason, std::uint32_t port, std::int64_t result,
                   std::uint64_t detail) {
        recent.exits[recent.next++ % 8] = {reason, port, result, detail};
    }
};

static_assert(offsetof(context, loop_stack) == XOS_CONTEXT_LOOP_STACK);
static_assert(offsetof(context, thread.application_rsp) == XOS_CONTEXT_APPLICATION_RSP);
static_assert(offsetof(context, signals.pending) == XOS_CONTEXT_SIGNALS_PENDING);
static_assert(offsetof(context, hop.in_flight) == XOS_CONTEXT_HOPPING);
static_assert(sizeof(context) <= XOS_CONTEXT_STRIDE / 2, "the other half is the run loop's stack");

}  // namespace xos::cell
