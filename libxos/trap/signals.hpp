// Signals, and Linux's own decision about an instruction, both by means of the hop.
//
// The hop: host mode puts the guest's exact registers and extended state into a signal frame of its
// own and executes rt_sigreturn. The thread then has the guest's state in host mode, and Linux
// itself builds the application's signal frame, or executes the offending instruction and raises
// the right signal. Every handler of the process is replaced by a trampoline, which takes the
// thread back into the guest at the handler that the application asked for. See docs/signals.md.
#pragma once

#include "libxos/cell/cell.hpp"

namespace xos::trap {

/// Hooks of the run loop.
void on_trap(cell::context& c);
void on_refused(cell::context& c);
void on_signals(cell::context& c);
void on_leaving(cell::context& c);

/// Lets Linux execute the instruction at `r` in host mode. Linux raises its signal, or the
/// instruction succeeds and the guest continues after it. Returns only when a signal came first,
/// which the run loop then delivers.
void step_in_host(cell::context& c, const arch::general_registers& r);
/// The same for a breakpoint, which may belong to a tracer.
void break_in_host(cell::context& c, const arch::general_registers& r);
/// The same for the call that the application is about to make, which sends `signal` to itself.
void call_in_host(cell::context& c, const arch::general_registers& r, int signal);
/// Lets Linux allow again the page that it was told to refuse for the step.
void reveal_page(cell::context& c);

/// Carries out the application's rt_sigreturn; its extended state is at `fpu_state`, or null.
/// False: Linux would not load that state.
bool return_from_handler(cell::context& c, const cell::kernel_ucontext& frame,
                         const void* fpu_state);

/// Raises a signal that Linux delivers even if the application has blocked or ignored it. A waiting
/// signal comes after it.
[[noreturn]] void force(cell::context& c, const arch::general_registers& r, int signal, int code,
                        std::uint64_t address);

/// Linux has built a frame for `signal`: runs the handler in the guest.
[[noreturn]] void run_handler(cell::context& c, int signal, cell::kernel_siginfo* info,
                              cell::kernel_ucontext& frame);

/// For a forked child without a VM: continues the thread at `r`, with the extended state in c.fpu,
/// until it makes a system call or gets a signal.
[[noreturn]] void continue_natively(cell::context& c, const arch::general_registers& r);
/// The same for good: Linux has the application's own handlers, and FS and GS have their final
/// values.
[[noreturn]] void leave_natively(cell::context& c, const arch::general_registers& r);
/// Like continue_natively(), with the frame that brought the child back.
[[noreturn]] void return_natively(cell::context& c, cell::kernel_ucontext& frame);

/// Queues `signal` for this thread and delivers it with the guest at `r`. Returns only when the
/// application no longer has a handler for it.
void deliver(cell::context& c, const arch::general_registers& r, const cell::queued_signal& signal);
/// Ends the process by a fault whose action is SIG_DFL, or SIG_IGN, which a fault overrides.
[[noreturn]] void end_by(cell::context& c, const cell::queued_signal& signal);
/// Called before the process ends by a signal that writes a core file, if one is written. The file
/// then has the memory that the program has, and none that libxos keeps in reserve.
void show_memory_for_core();
/// Leaves a signal without a handler to Linux's default action: all signals are blocked.
void leave_to_default(cell::context& c, const cell::queued_signal& signal);

/// Loads a signal frame's extended state (null: the initial state) into the vCPU; returns false if
/// it is invalid.
bool set_extended_state(cell::context& c, const void* fpu_state);

void set_default_action(int signal);

std::uint64_t set_mask(std::uint64_t mask);
/// Blocks all signals; returns the application's mask. No signal is recorded until apply_mask().
std::uint64_t block_signals(cell::context& c);
/// Makes `mask` the application's. The kernel's mask stays full while a signal waits to be
/// delivered.
void apply_mask(cell::context& c, std::uint64_t mask);

}  // namespace xos::trap
