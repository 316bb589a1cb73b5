#include "libxos/cell/cell.hpp"

#include <pthread.h>
#include <unwind.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string_view>
#include <xos/cell.hpp>

#include "libxos/api/call_blocks.hpp"
#include "libxos/api/errors.hpp"
#include "libxos/api/rseq.hpp"
#include "libxos/api/runtime.hpp"
#include "libxos/arch/cpu.hpp"
#include "libxos/vm/views/views.hpp"

namespace xos {

namespace {

using cell::the_cell;

/// Recursive, because a signal handler may fork.
std::recursive_mutex starting;
std::size_t frame_arena = std::size_t{64} << 20;

void after_fork_in_child() {
    new (&starting) std::recursive_mutex;
    // Inside, the fork has already rebuilt the VM; outside, the next enter() does.
    if (the_cell.started && !inside()) the_cell.stale = true;
}

/// Registered at start-up: a fork under way does not call a handler registered meanwhile.
[[maybe_unused]] const int watching =
    pthread_atfork([] { starting.lock(); }, [] { starting.unlock(); }, after_fork_in_child);

/// Whether a signal frame is above us on this stack. Asked once, for handlers that began before the
/// trampolines were in place.
bool unwinds_through_signal_frame() {
    bool found = false;
    _Unwind_Backtrace(
        [](_Unwind_Context* frame, void* result) {
            int before_instruction = 0;
            _Unwind_GetIPInfo(frame, &before_instruction);
            if (before_instruction) *static_cast<bool*>(result) = true;
            return before_instruction ? _URC_END_OF_STACK : _URC_NO_REASON;
        },
        &found);
    return found;
}

bool in_contexts(std::uint64_t gs) {
    return gs - xos_contexts_begin < xos_contexts_size;
}

bool in_system_arena(std::uint64_t gs) {
    const auto& arena = the_cell.arena;
    return gs >= arena.begin().value && gs < arena.end().value;
}

void rebuild_if_forked() {
    std::lock_guard guard(starting);
    if (!the_cell.stale) return;
    cell::leave_parent(nullptr);
    if (auto failed = cell::make_own_machine(nullptr); !failed.ok()) api::raise(failed);
}

}  // namespace

void start(const cell_options& options) {
    std::lock_guard guard(starting);
    if (the_cell.started) api::raise({base::step::already_started, EALREADY});
    if (unwinds_through_signal_frame())
        api::raise(errc::in_signal_handler, "start() called from a signal handler");
    frame_arena = options.frame_arena;
    auto failed = api::start_runtime({.wanted = options.mode,
                                      .max_vcpus = options.max_vcpus,
                                      .system_arena = options.system_arena,
                                      .process_arena = options.process_arena,
                                      .process_pager = static_cast<unsigned>(options.process_pager),
                                      .process_window = options.process_window,
                                      .serve_break = options.serve_break,
                                      .transport = options.transport,
                                      .native_children = options.native_children});
    if (!failed.ok()) api::raise(failed);
    api::reserve_call_blocks();
    const char* quiet = std::getenv("XOS_QUIET");
    the_cell.reports.quiet = quiet && quiet == std::string_view("1");
    the_cell.call_handler_outside = api::call_handler_outside;
}

bool started() noexcept {
    return the_cell.started;
}

bool inside() noexcept {
    return the_cell.started && in_system_arena(arch::read_gs_base());
}

void enter() {
    if (!the_cell.started) start({});
    const std::uint64_t gs = arch::read_gs_base();
    if (in_system_arena(gs))
        api::raise(errc::already_inside, "enter() called inside; leave() first");
    if (in_contexts(gs)) api::raise(errc::in_host_call, "enter() called from a host_call()");
    if (api::in_signal_handler())
        api::raise(errc::in_signal_handler, "enter() called from a signal handler");
    if (the_cell.stale) rebuild_if_forked();
    // Done once for a thread: reading the kernel's whole table would cost half an entry.
    [[gnu::tls_model("initial-exec")]] static thread_local bool has_entered = false;
    if (!has_entered) {
        if (unwinds_through_signal_frame())
            api::raise(errc::in_signal_handler, "enter() called from a signal handler");
        adopt_signal_handlers();
        api::give_up_rseq();
        has_entered = true;
    }

    if (auto failed = cell::enter_guest(); !failed.ok()) api::raise(failed);
}

void leave() {
    if (!inside()) api::raise(errc::not_inside, "leave() called outside");
    const auto* area = arch::current_area();
    const auto here = reinterpret_cast<std::uint64_t>(__builtin_frame_address(0));
    if (here - area->trap_stack_base < area->trap_stack_size) {
        api::raise(errc::in_fault_handler, "leave() called from a fault handler");
    }
    xos_leave_guest();
}

void adopt_signal_handlers() {
    if (!the_cell.started)
        api::raise(errc::not_started, "adopt_signal_handlers() called before start()");
    std::lock_guard guard(starting);
    cell::take_over_signals(the_cell.actions);
}

mode current_mode() noexcept {
    return the_cell.current;
}

const char* name(mode m) noexcept {
    return cell::mode_name(m);
}

const char* name(transport t) noexcept {
    return cell::transport_name(t);
}

transport current_transport() noexcept {
    if (!the_cell.started) return transport::automatic;
    return the_cell.calls.way.name;
}

std::string mode_reason() {
    if (!the_cell.started) return "the cell has not been started";
    if (!the_cell.ring0.interpreted) return "ring 0 is executed natively here";
    if (!the_cell.ring0.picoseconds)
        return "the processor offers neither VMX nor SVM: its software KVM interprets ring 0";
    char text[160];
    std::snprintf(text, sizeof text,
                  "a ring-0 instruction takes %.0f ns here: this software KVM interprets ring 0",
                  static_cast<double>(the_cell.ring0.picoseconds) / 1000);
    return text;
}

void detail::host_call(void (*fn)(void*), void* argument) {
    if (!inside()) return fn(argument);
    auto* area = arch::current_area();
    area->host_call = fn;
    area->host_call_argument = argument;
    asm volatile("outl %%eax, %0" : : "i"(XOS_PORT_HOST_CALL), "a"(0) : "memory");
}

namespace api {

std::size_t frame_arena_bytes() {
    return frame_arena;
}

}  // namespace api

}  // namespace xos
