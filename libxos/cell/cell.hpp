// The process-wide cell: the one piece of global mutable state.
#pragma once

#include <atomic>
#include <new>
#include <xos/mode.hpp>
#include <xos/transport.hpp>

#include "libxos/base/futex_lock.hpp"
#include "libxos/base/outcome.hpp"
#include "libxos/cell/context.hpp"
#include "libxos/cell/probe.hpp"
#include "libxos/kvm/call_device.hpp"
#include "libxos/kvm/descriptor_limit.hpp"
#include "libxos/kvm/machine.hpp"
#include "libxos/memory/address_space.hpp"
#include "libxos/program/policy.hpp"

extern "C" {
/// The array of contexts, for the signal trampoline.
extern std::uint64_t xos_contexts_begin, xos_contexts_size;
}

namespace xos::cell {

/// The guest's own tables' answer about an address, where they differ from Linux's.
struct refusal {
    bool owned = false;  ///< the guest's tables decide: Linux must not be asked
    bool mapped = false;
    int protection = 0;  ///< PROT_... of mmap(2)
};

/// The layers above handle exits here. Each hook may leave the run loop for good (a hop, an exit).
struct exit_hooks {
    void (*system_call)(context&);
    void (*trap)(context&);  ///< an exception that nothing in the guest handled
    void (*refused)(
        context&);  ///< Linux refused an access, or the application used a privileged instruction
    void (*signals)(context&);      ///< a signal waits: deliver it, or ask the guest to give way
    void (*interrupted)(context&);  ///< a signal came, perhaps in a call of the kernel module
    void (*leaving)(context&);      ///< a thread goes on in host mode; all signals are blocked
    refusal (*why_refused)(std::uint64_t address);
    /// Gives Linux the rights that the guest's own tables give.
    void (*show_memory)();
    /// Makes all memory Linux's for good; see vm/process/linux_memory.hpp.
    void (*retire_memory)();
    /// Returns the first page of a range that the guest may not touch (or not write), or 0.
    std::uint64_t (*first_forbidden)(std::uint64_t begin, std::uint64_t length, bool write);
    /// Has Linux refuse such a page as the guest's tables do; reveal() undoes it.
    concealed_page (*conceal)(std::uint64_t page);
    void (*reveal)(const concealed_page&);
    /// A call that libxos does not know names an address of the arena.
    void (*entrust)(std::uint64_t address);
    /// The guest has touched memory of the arena that is mapped on first touch: returns whether it
    /// is mapped now.
    bool (*touch)(std::uint64_t address);
    /// The guest has tried to execute memory of the arena: returns whether Linux says that it is
    /// code.
    bool (*find_code)(std::uint64_t address);
    /// Chooses how forwarded calls reach Linux, for a VM that has just been made.
    base::outcome (*choose_transport)(transport wanted);
    /// A forked child that runs natively has made a call, or gets a signal. Does not return.
    void (*landed_natively)(context&, int signal, kernel_siginfo*, kernel_ucontext&);
    // Null unless event loops are batched (loops/loops.hpp).
    void (*on_timer)(context&) = nullptr;
    void (*before_hop)(context&) = nullptr;
    void (*forget_turns)() = nullptr;
};

inline constexpr std::size_t automatic_size = ~std::size_t{0};

struct start_options {
    mode wanted = mode::automatic;
    unsigned max_vcpus = 1024;
    std::size_t system_arena = std::size_t{160} << 20;
    std::size_t process_arena = automatic_size;
    unsigned process_pager = 0;  ///< the public API's `residency`
    unsigned process_window = 64;
    bool serve_break = false;  ///< every thread of the process is inside
    xos::transport transport = transport::automatic;
    bool native_children = false;
    /// What the kernel module may make; see syscall/module_calls.hpp.
    const std::uint32_t* module_calls = nullptr;
    /// Calls of event loops are batched (loops/). The system arena has `event_loop_bytes` for that.
    bool event_loops = false;
};
inline constexpr std::size_t event_loop_bytes = std::size_t{4} << 20;

/// The log of system calls (syscall/trace.hpp).
struct trace_state {
    int fd = -1;  ///< libxos's own descriptor; -1: nothing is logged
    /// The same moment on both clocks.
    std::uint64_t cycles = 0, nanoseconds = 0;
};

/// Memory whose rights the guest's tables decide, while Linux allows everything there (vm/).
struct memory_guard {
    bool hides = false;  ///< has taken rights away that Linux still grants
    gva begin;
    std::uint64_t length = 0;

    bool covers(std::uint64_t address) const { return gva{address} - begin < length; }
};

/// What every vCPU is set up with.
struct guest_setup {
    hva interrupt_table;
    hva flush_page;                  ///< taken away and touched again to make KVM flush every vCPU
    bool tags_translations = false;  ///< PCID
    bool tells_processor_number = false;  ///< LSL and RDPID see the guest's tables, not Linux's
};

struct context_pool {
    static constexpr unsigned limit = 4096;
    unsigned most = 0;
    unsigned count = 0;
    /// The value of GS on the kernel side, by context: kernel-side code may touch only memory that
    /// is always mapped, and contexts are host memory.
    arch::guest_area* areas[limit];
};

/// A way in which the application's calls reach Linux (forward/).
struct call_transport {
    transport name = transport::automatic;
    /// Prepares a VM that has just been made. On failure nothing has changed.
    base::outcome (*attach)() = nullptr;
    /// Makes a call (its number and six arguments) for the application; returns taken_back if a
    /// signal comes first.
    long (*call)(context&, const std::uint64_t* call) = nullptr;
    /// Makes calls of a vector in one crossing; the arguments are those of XOS_NR_VECTOR
    /// (kmod/xos_uapi.h). Returns how many have been made; none, if a signal comes first.
    long (*calls)(context&, const std::uint64_t* arguments) = nullptr;
};

struct call_state {
    call_transport way;
    kvm::call_device module;  ///< attached: the module answers the doorbell
    /// What the module may do about each call (syscall/module_calls.hpp).
    const std::uint32_t* module_calls = nullptr;
};

/// What the cell writes on its own account.
struct report_state {
    int fd = 2;
    bool quiet = false;  ///< writes no line on standard error about refused calls
    void (*at_exit)(const char* why) = nullptr;  ///< writes statistics before exit_group and execve
    /// The calls that already had a line that they were refused.
    std::uint64_t refused[XOS_SYSCALL_TABLE / 64] = {};
};

/// The process's program, and those that it starts.
struct program_state {
    program::policy policy;
    bool native_children = false;
    /// How many programs were started outside because they cannot live in a cell.
    std::uint32_t outside_starts = 0;
    /// The right target of /proc/self/exe, if Linux does not know it; empty: Linux does.
    char path[4096] = {};
};

/// What a forked child does not inherit: leave_parent() resets it.
struct process_state {
    static constexpr std::uint64_t still_running = ~std::uint64_t{0};
    /// The exit status of the process's first thread, if it has ended before the others.
    std::uint64_t leader_status = still_running;
    bool shares_descriptors = false;  ///< with its parent (CLONE_FILES), but not its memory
    /// The parent's, which this process shall have, too.
    transport wanted = transport::automatic;
};

struct cell_state {
    std::atomic<bool> started = false;
    std::atomic<bool> stale = false;  ///< forked in host mode: the VM is the parent's
    mode current = mode::automatic;
    ring0_cost ring0;
    exit_hooks hooks{};

    // The machine.
    kvm::descriptor_set descriptors;
    kvm::capabilities caps;
    kvm::machine machine;
    call_state calls;
    guest_setup guest;
    context_pool contexts;

    // Its memory.
    memory::system_arena arena;
    alignas(memory::address_space) unsigned char space_storage[sizeof(memory::address_space)];
    memory_guard guard;

    // What runs in it.
    process_state process;
    program_state program;
    kvm::descriptor_limit descriptor_limit;
    signal_table actions;  ///< of every thread except the child of a vfork
    /// Runs a handler on a thread outside the cell, and tells the C++ API that one is running.
    void (*call_handler_outside)(void (*)(int, void*, void*), int, void*, void*) = nullptr;

    report_state reports;
    trace_state trace;

    memory::address_space& space() {
        return *std::launder(reinterpret_cast<memory::address_space*>(space_storage));
    }
    context& context_at(unsigned i) {
        return *reinterpret_cast<context*>(xos_contexts_begin +
                                           std::uint64_t{i} * XOS_CONTEXT_STRIDE);
    }
    bool is_ring3() const { return current == mode::ring3; }
};

extern cell_state the_cell;

/// The action to give to the kernel for a signal whose action in the application's table is
/// `wanted`.
kernel_sigaction trampoline_for(const kernel_sigaction& wanted);

/// Replaces every handler that the kernel has by the trampoline, and records the replaced ones.
void take_over_signals(signal_table& table);

const char* mode_name(mode m);
const char* transport_name(transport t);

/// Makes the VM and everything that exists once. On failure the process is unchanged.
base::outcome start(const start_options& options, const exit_hooks& hooks);

/// Whether a child has its parent's descriptor table, or a copy of it.
enum class descriptor_table { copied, shared };
/// After fork: gives up what is the parent's, and the contexts of threads that do not exist here.
void leave_parent(context* survivor, descriptor_table table = descriptor_table::copied);
/// After leave_parent(): makes a new VM over the copied memory, with `survivor` (or no thread)
/// inside.
base::outcome make_own_machine(context* survivor);

/// Called when the last thread of a process ends whose descriptor table others go on using.
void close_own_descriptors();

/// Tells the kernel module, if it is attached, where the guest's tables decide: `guarded`.
base::outcome guard_calls();

/// Continues the calling thread in the guest: returns there on success, here on failure. The thread
/// must not be in a signal handler.
base::outcome enter_guest();

/// Takes a context for the calling thread, making one if none is free. Null, with the reason, if
/// there is none.
context* take_context(base::outcome& failure);
inline void release(context& c) {
    __atomic_store_n(&c.busy, 0, __ATOMIC_RELEASE);
}

/// Whether the calling thread, which is inside, is the only one.
bool only_thread_inside();

/// Continues the guest at these registers of the application at the next run, whatever it was
/// doing.
void resume_at(context& c, const arch::general_registers& r);

/// Gets the application's registers, wherever the guest stopped. False: kernel-side code is running
/// and must reach its next poll first.
bool application_registers(context& c, arch::general_registers& r);
/// Asks kernel-side code to give way at its next poll.
void request_poll(context& c);
void clear_poll(context& c);

void update_processor_number(context& c, std::uint32_t number);

[[noreturn]] void run_loop(context& c);

/// A code of arch_prctl(2) that Linux refuses; in a cell it succeeds.
inline constexpr long is_inside_a_cell = 0x78'6f'73;

/// Prints the report of a cell that cannot continue and ends the process with SIGABRT.
[[noreturn]] void die(context* c, const char* reason, std::uint64_t detail = 0);
/// The same for an exception whose frame is known, and for a fault in host mode.
[[noreturn]] void die_at(context* c, const char* reason, const trap_frame& frame);
[[noreturn]] void die_in_host(context* c, int signal, const kernel_siginfo& info,
                              const kernel_ucontext& u);

/// What xos_forward returns when the call was not made because a signal is waiting: -ERESTARTSYS,
/// which no call returns.
inline constexpr long taken_back = -512;

}  // namespace xos::cell

extern "C" {
void xos_switch_to_guest(xos::cell::context*);
[[noreturn]] void xos_continue_in_host(std::uint64_t rsp, std::uint32_t* busy, std::uint64_t mask);
long xos_forward(xos::cell::context*, const std::uint64_t* call);
long xos_forward_as(xos::cell::context*, const std::uint64_t* call, std::uint64_t number);
long xos_clone(const std::uint64_t* call, xos::cell::context* child);
[[noreturn]] void xos_end_thread(std::uint32_t* busy, long status);
[[noreturn]] void xos_sigreturn(void* frame);
void xos_signal_trampoline();
void xos_leave_guest();
}
