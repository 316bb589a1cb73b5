// The process-wide cell: the one piece of global mutable state.
#pragma once

#include <atomic>
#include <new>
#include <xos/mode.hpp>
#include <xos/transport.hpp>

#include "libxos/base/futex_lock.hpp"
#include "libxos/base/outcome.hpp"
#include "libxos/cell/context.hpp"
#include "libxos/kvm/call_device.hpp"
#include "libxos/kvm/descriptor_limit.hpp"
#include "libxos/kvm/vm.hpp"
#include "libxos/memory/address_space.hpp"
#include "libxos/program/policy.hpp"

extern "C" {
/// The array of contexts, for the signal trampoline.
extern std::uint64_t xos_contexts_begin, xos_contexts_size;
}

namespace xos::cell {

/// What the guest's own tables say about an address, where Linux's do not.
struct refusal {
    bool owned = false;  ///< Linux must not be asked
    bool mapped = false;
    int protection = 0;  ///< PROT_... of mmap(2)
};

/// What the layers above do about an exit. Each may leave the run loop for good (a hop, an exit).
struct exit_hooks {
    void (*system_call)(context&);
    void (*trap)(context&);  ///< an exception that nobody in the guest settled
    void (*refused)(
        context&);  ///< Linux refused an access, or the application used a privileged instruction
    void (*signals)(context&);      ///< one is waiting: deliver it, or ask the guest to give way
    void (*interrupted)(context&);  ///< perhaps in a call that the kernel module was making
    void (*leaving)(context&);      ///< before a thread goes on in host mode, all signals blocked
    refusal (*why_refused)(std::uint64_t address);
    /// Gives Linux the rights that the guest's own tables give.
    void (*show_memory)();
    /// Makes all memory Linux's for good; see vm/linux_memory.hpp.
    void (*retire_memory)();
    /// The first page of a range that the guest may not touch (or not write), or 0.
    std::uint64_t (*first_forbidden)(std::uint64_t begin, std::uint64_t length, bool write);
    /// Has Linux refuse such a page as the guest's tables do, and undoes that.
    concealed_page (*conceal)(std::uint64_t page);
    void (*reveal)(const concealed_page&);
    /// A call that libxos does not know names an address of the arena.
    void (*entrust)(std::uint64_t address);
    /// The guest has touched memory of the arena that is mapped when somebody touches it: whether it
    /// is now.
    bool (*touch)(std::uint64_t address);
    /// The guest has tried to execute memory of the arena: whether Linux says that it is code.
    bool (*find_code)(std::uint64_t address);
    /// A forked child that runs natively has made a call, or gets a signal. Does not come back.
    void (*landed_natively)(context&, int signal, kernel_siginfo*, kernel_ucontext&);
};

inline constexpr std::size_t automatic_size = ~std::size_t{0};

struct cell_options {
    mode wanted = mode::automatic;
    unsigned max_vcpus = 1024;
    std::size_t system_arena = std::size_t{160} << 20;
    std::size_t process_arena = automatic_size;
    unsigned process_pager = 0;  ///< residency of the public face
    unsigned process_window = 64;
    bool serve_break = false;  ///< every thread of the process is inside
    xos::transport transport = transport::automatic;
    bool native_children = false;
    /// The calls that Linux carries out, a bit each, for the kernel module.
    std::uint64_t forwarded[XOS_CALLS / 64] = {};
};

/// The log of system calls (syscall/trace.hpp).
struct trace_state {
    int fd = -1;  ///< libxos's own; -1: nothing is logged
    /// The same moment by both clocks.
    std::uint64_t cycles = 0, nanoseconds = 0;
};

struct cell_state {
    std::atomic<bool> started = false;
    std::atomic<bool> stale = false;  ///< forked in host mode: the VM is the parent's
    mode current = mode::automatic;
    std::uint64_t ring0_picoseconds = 0;  ///< cost of a ring-0 instruction; 0: not measured
    bool ring0_interpreted = false;
    bool native_children = false;
    bool hides_memory = false;  ///< has taken rights away of which Linux does not know
    /// Addresses where the guest's tables say what may be done, and Linux lets everything be done.
    gva guarded;
    std::uint64_t guarded_length = 0;
    bool tells_processor_number = false;  ///< LSL and RDPID see the guest's tables, not Linux's

    kvm::descriptor_set descriptors;
    bool shares_descriptors = false;  ///< with its parent (CLONE_FILES), but not its memory
    kvm::descriptor_limit descriptor_limit;
    kvm::capabilities caps;
    kvm::vm machine;
    kvm::call_device calls;       ///< attached: the transport is the kernel module
    bool reattach_calls = false;  ///< after a fork
    std::uint64_t forwarded[XOS_CALLS / 64] = {};
    memory::system_arena arena;
    alignas(memory::address_space) unsigned char space_storage[sizeof(memory::address_space)];
    bool tags_translations = false;  ///< PCID
    hva interrupt_table;
    hva flush_page;  ///< given up and used again to make KVM flush every vCPU
    /// What GS points to on the kernel side, by context: kernel-side code may touch nothing that is
    /// not mapped for sure, and contexts are the host's memory.
    static constexpr unsigned most_contexts = 4096;
    arch::guest_area* areas[most_contexts];

    unsigned max_contexts = 0;
    unsigned context_count = 0;

    signal_table actions;  ///< of every thread but the child of a vfork
    exit_hooks hooks{};
    void (*at_exit)(const char* why) = nullptr;  ///< statistics, before exit_group and execve
    /// Runs a handler on a thread outside; lets the C++ face know that one is running.
    void (*call_handler_outside)(void (*)(int, void*, void*), int, void*, void*) = nullptr;
    /// What the process's first thread ended with, if it has ended before the others.
    static constexpr std::uint64_t still_running = ~std::uint64_t{0};
    std::uint64_t leader_status = still_running;
    int report_fd = 2;
    trace_state trace;
    bool quiet = false;  ///< no line on standard error about a call that is refused
    /// The calls that such a line has been about.
    std::uint64_t refusals_reported[XOS_SYSCALL_TABLE / 64] = {};

    program::policy exec;
    /// Programs started outside, because they cannot live in a cell.
    std::uint32_t outside_starts = 0;
    /// What /proc/self/exe should say, where Linux does not know it; empty: Linux does.
    char program_path[4096] = {};

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

/// The kernel's entry for a signal whose handler in the application's table is `wanted`.
kernel_sigaction trampoline_for(const kernel_sigaction& wanted);

/// Puts the trampoline in the place of every handler that the kernel has, and notes whose place it
/// is.
void take_over_signals(signal_table& table);

const char* mode_name(mode m);
const char* transport_name(transport t);

/// Makes the VM and everything that exists once. On failure the process is as it was.
base::outcome start(const cell_options& options, const exit_hooks& hooks);

/// Whether a child has its parent's descriptor table, or a copy of it.
enum class descriptor_table { copied, shared };
/// After fork: gives up what is the parent's, and the contexts of threads that are not here.
void leave_parent(context* survivor, descriptor_table table = descriptor_table::copied);
/// And then a new VM over the copied memory, with `survivor` (or no thread) inside.
base::outcome make_own_machine(context* survivor);

/// The last thread of a process whose descriptor table others go on using ends.
void close_own_descriptors();

/// Continues the calling thread in the guest: returns there on success, here on failure. No handler
/// of a signal may be running on it.
base::outcome enter_guest();

/// A context for the calling thread, created if none is free; null with the reason when there is
/// none.
context* take_context(base::outcome& failure);
inline void release(context& c) {
    __atomic_store_n(&c.busy, 0, __ATOMIC_RELEASE);
}

/// Whether the calling thread, which is inside, is the only one.
bool only_thread_inside();

/// Sends the guest to these registers of the application at the next run, whatever it was doing.
void resume_at(context& c, const arch::general_registers& r);

/// The application's registers, wherever the guest stopped. False: kernel-side code is running and
/// has to reach its next poll first.
bool application_registers(context& c, arch::general_registers& r);
/// Asks kernel-side code to give way at its next poll.
void request_poll(context& c);
void clear_poll(context& c);

void update_processor_number(context& c, std::uint32_t number);

[[noreturn]] void run_loop(context& c);

/// A code of arch_prctl(2) that Linux refuses, and succeeds in a cell.
inline constexpr long is_inside_a_cell = 0x78'6f'73;

/// Prints the report of a cell that cannot go on and ends the process with SIGABRT.
[[noreturn]] void die(context* c, const char* reason, std::uint64_t detail = 0);
/// The same for an exception whose frame is known, and for a fault in host mode.
[[noreturn]] void die_at(context* c, const char* reason, const trap_frame& frame);
[[noreturn]] void die_in_host(context* c, int signal, const kernel_siginfo& info,
                              const kernel_ucontext& u);

/// What xos_forward returns when the call was not made because a signal waits: -ERESTARTSYS, which
/// no call's result is.
inline constexpr long taken_back = -512;

}  // namespace xos::cell

extern "C" {
void xos_switch_to_guest(xos::cell::context*);
[[noreturn]] void xos_continue_in_host(std::uint64_t rsp, std::uint32_t* busy, std::uint64_t mask);
long xos_forward(xos::cell::context*, const std::uint64_t* call);
long xos_clone(const std::uint64_t* call, xos::cell::context* child);
[[noreturn]] void xos_end_thread(std::uint32_t* busy, long status);
[[noreturn]] void xos_sigreturn(void* frame);
void xos_signal_trampoline();
void xos_leave_guest();
}
