#include "libxos/api/runtime.hpp"
#include "libxos/forward/transports.hpp"
#include "libxos/loops/loops.hpp"
#include "libxos/syscall/emulated.hpp"
#include "libxos/syscall/local.hpp"
#include "libxos/syscall/module_calls.hpp"
#include "libxos/trap/dispatch.hpp"
#include "libxos/trap/signals.hpp"
#include "libxos/vm/process/anonymous.hpp"
#include "libxos/vm/process/break.hpp"
#include "libxos/vm/process/linux_memory.hpp"

namespace xos::api {

namespace {

void on_leaving(cell::context& c) {
    vm::settle_break();
    trap::on_leaving(c);
}

void retire_memory() {
    vm::retire_arena(vm::zero_pages::stay);
}

std::uint64_t first_forbidden(std::uint64_t begin, std::uint64_t length, bool write) {
    return vm::first_forbidden(gva{begin}, length, write).value;
}

bool touch(std::uint64_t address) {
    return vm::the_process_arena.touch(gva{address}.align_down(page_size));
}

void entrust(std::uint64_t address) {
    vm::entrust_around(gva{address});
}

}  // namespace

base::outcome start_runtime(const cell::start_options& options) {
    cell::start_options all = options;
    all.module_calls = syscall::module_calls.data();
    const bool batched = options.event_loops;
    auto failed =
        cell::start(all, {.system_call = batched ? loops::on_system_call : syscall::on_system_call,
                          .trap = trap::on_trap,
                          .refused = trap::on_refused,
                          .signals = trap::on_signals,
                          .interrupted = forward::on_interrupted,
                          .leaving = on_leaving,
                          .why_refused = vm::why_refused,
                          .show_memory = vm::show_arena_to_linux,
                          .retire_memory = retire_memory,
                          .first_forbidden = first_forbidden,
                          .conceal = vm::conceal,
                          .reveal = vm::reveal,
                          .entrust = entrust,
                          .touch = touch,
                          .find_code = vm::find_arena_code,
                          .choose_transport = forward::choose_transport,
                          .landed_natively = syscall::landed_natively,
                          .on_timer = batched ? loops::on_timer : nullptr,
                          .before_hop = batched ? loops::before_hop : nullptr,
                          .forget_turns = batched ? loops::forget_turns : nullptr});
    if (!failed.ok()) return failed;
    syscall::answer_inside(syscall::served::identity);
    if (batched) {
        if (failed = loops::start(); !failed.ok()) return failed;
        syscall::answer_inside(syscall::served::event_loops);
    }
    trap::the_configuration = {cell::the_cell.caps.xsave_size, cell::the_cell.caps.xcr0,
                               cell::the_cell.is_ring3() ? nullptr : touch};
    const bool automatic = options.process_arena == cell::automatic_size;
    const auto pager = static_cast<residency>(options.process_pager);
    const std::uint64_t window = std::uint64_t{options.process_window} * page_size;
    vm::serve_anonymous_memory(automatic ? vm::default_arena_bytes() : options.process_arena, pager,
                               window);
    if (options.serve_break) vm::serve_break(pager, window);
    return base::success;
}

}  // namespace xos::api
