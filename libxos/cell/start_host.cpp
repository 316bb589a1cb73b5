// Making the cell: the VM, libxos's own memory, the mode.
#include "libxos/arch/cpu.hpp"
#include "libxos/arch/page_table_entry.hpp"
#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/cell/layout.hpp"
#include "libxos/cell/probe.hpp"
#include "libxos/cell/stubs.hpp"

extern "C" {
// The bounds of the library or program that this is linked into (symbols of ld).
[[gnu::visibility("hidden")]] extern const char __ehdr_start[], _end[];
}

namespace xos::cell {

using base::as_long;
using base::outcome;
using base::raw_syscall;
using base::step;

cell_state the_cell;

namespace {

constexpr std::size_t table_bytes = std::size_t{48} << 20;

outcome choose_mode(mode wanted, kvm::vcpu& cpu) {
    // Measuring costs an interpreter a third of a millisecond, and would only confirm what CPUID
    // says.
    bool interpreted = !the_cell.caps.hardware;
    if (!interpreted) {
        ring0_cost cost;
        if (auto failed = measure_ring0(cpu, the_cell.caps, the_cell.space().root(), cost);
            !failed.ok()) {
            return failed;
        }
        interpreted = cost.interpreted;
        the_cell.ring0.picoseconds = cost.picoseconds;
    }
    the_cell.ring0.interpreted = interpreted;
    if (interpreted && (wanted == mode::ring0 || wanted == mode::ring3)) {
        return {step::mode_needs_hardware, base::error::opnotsupp};
    }
    if (!interpreted && wanted == mode::pvm)
        return {step::mode_needs_software_kvm, base::error::opnotsupp};
    the_cell.current = wanted != mode::automatic ? wanted : interpreted ? mode::pvm : mode::ring0;
    the_cell.guest.tells_processor_number = !interpreted;
    the_cell.guest.tags_translations = !interpreted && the_cell.caps.process_context_ids;
    return base::success;
}

outcome make_interrupt_table() {
    const hva page = the_cell.arena.allocate_kernel(page_size);
    if (!page.value) return {step::reserve_memory, base::error::nomem};
    auto* gates = reinterpret_cast<arch::idt_gate*>(page.value);
    const char* vectors = the_cell.current == mode::ring0   ? xos_vectors_ring0
                          : the_cell.current == mode::ring3 ? xos_vectors_ring3
                                                            : xos_vectors_pvm;
    for (unsigned v = 0; v < 32; v++) {
        // The application may execute INT3 and INTO.
        const unsigned privilege = v == arch::vector_breakpoint || v == 4 ? 3 : 0;
        gates[v] = arch::gate(address_of(vectors) + 16 * v, ist_of(v), privilege);
    }
    the_cell.guest.interrupt_table = page;
    return base::success;
}

/// Memory that kernel-side code touches must be visible before the first exception. The stack of
/// the thread that starts the cell is included to save one exit for its first fault.
outcome map_own_image() {
    outcome failure = base::success;
    for (gva at{address_of(__ehdr_start)}; at.value < address_of(_end);
         at = at.align_down(memory::chunk_size) + memory::chunk_size) {
        the_cell.space().add_chunk(at, failure);
    }
    the_cell.space().add_chunk(gva{address_of(_end)}, failure);
    the_cell.space().add_chunk(gva{reinterpret_cast<std::uint64_t>(__builtin_frame_address(0))},
                               failure);
    if (!failure.ok()) return failure;
    if (failure = the_cell.space().reveal_code(); !failure.ok()) return failure;
    // Needed also without /proc: the dispatcher cannot handle an exception of its own first
    // instruction.
    const gva code{address_of(xos_vectors_ring0)};
    const auto leaf = the_cell.space().tables().query(code);
    const bool executable = leaf && !any(leaf->flags & arch::entry_flags::no_execute);
    if (!executable && !the_cell.space().find_code(code))
        return {step::page_tables, base::error::nomem};
    the_cell.space().keep_visible_chunks();
    return failure;
}

outcome build(const start_options& options) {
    auto& cell = the_cell;
    cell.descriptors.initialise();
    if (auto failed = kvm::probe_capabilities(cell.caps); !failed.ok()) return failed;
    if (auto failed = cell.machine.create(cell.descriptors, cell.caps); !failed.ok()) return failed;
    unsigned count = options.max_vcpus;
    if (count > cell.caps.max_vcpus) count = cell.caps.max_vcpus;
    if (count > cell.contexts.limit) count = cell.contexts.limit;
    const std::size_t kernel_bytes = table_bytes + count * kernel_bytes_per_context +
                                     (options.event_loops ? event_loop_bytes : 0);
    const std::size_t needed = kernel_bytes + count * user_bytes_per_context + 2 * large_page_size;
    if (count == 0 || needed > options.system_arena || options.system_arena >= memory::user_end)
        return {step::bad_option, base::error::inval};
    if (auto failed = cell.arena.reserve(options.system_arena, kernel_bytes); !failed.ok())
        return failed;
    new (cell.space_storage) memory::address_space(cell.caps.physical_bits);
    const auto visibility = options.wanted == mode::ring3 ? memory::arena_visibility::kernel_hidden
                                                          : memory::arena_visibility::all;
    if (auto failed = cell.space().create(cell.machine, cell.arena, visibility); !failed.ok()) {
        return failed;
    }
    if (auto failed = map_own_image(); !failed.ok()) return failed;
    if (auto failed = reserve_contexts(count); !failed.ok()) return failed;
    // Makes the first vCPU now: start(), not enter(), should report what this machine lacks.
    context& first = cell.context_at(0);
    if (auto failed = first.cpu.create(cell.machine, cell.descriptors, cell.caps, 0);
        !failed.ok()) {
        return failed;
    }
    if (auto failed = choose_mode(options.wanted, first.cpu); !failed.ok()) return failed;
    cell.calls.module_calls = options.module_calls;
    cell.program.native_children = options.native_children;
    if (auto failed = cell.hooks.choose_transport(options.transport); !failed.ok()) return failed;
    if (auto failed = make_interrupt_table(); !failed.ok()) return failed;
    cell.guest.flush_page = cell.arena.allocate_kernel(page_size);
    if (!cell.guest.flush_page.value) return {step::reserve_memory, base::error::nomem};
    if (auto failed = make_context(0); !failed.ok()) return failed;
    cell.contexts.count = 1;
    return base::success;
}

}  // namespace

const char* mode_name(mode m) {
    switch (m) {
        case mode::ring0:
            return "ring0";
        case mode::ring3:
            return "ring3";
        case mode::pvm:
            return "pvm";
        case mode::automatic:
            break;
    }
    return "auto";
}

const char* transport_name(transport t) {
    switch (t) {
        case transport::exit:
            return "exit";
        case transport::module:
            return "module";
        case transport::automatic:
            break;
    }
    return "auto";
}

kernel_sigaction trampoline_for(const kernel_sigaction& wanted) {
    const auto trampoline = reinterpret_cast<std::uint64_t>(&xos_signal_trampoline);
    constexpr std::uint64_t passed_on = sa::nocldstop | sa::nocldwait | sa::restart | sa::onstack;
    // Every signal is blocked while the trampoline runs; it then sets the mask that the handler
    // should have.
    return {trampoline, (wanted.flags & passed_on) | sa::siginfo | sa::restorer,
            wanted.flags & sa::restorer ? wanted.restorer : trampoline, ~std::uint64_t{0}};
}

void take_over_signals(signal_table& table) {
    const auto trampoline = reinterpret_cast<std::uint64_t>(&xos_signal_trampoline);
    for (int s = 1; s <= signal_count; s++) {
        if (s == sig_kill || s == sig_stop) continue;
        kernel_sigaction present;
        raw_syscall(__NR_rt_sigaction, s, 0, as_long(&present), 8);
        if (present.handler == trampoline) continue;
        table.of[s] = present;
        // The hop single-steps: the handler of SIGTRAP in the kernel is always libxos's.
        if (present.handler > 1 || s == sig_trap) {
            const kernel_sigaction ours = trampoline_for(present);
            raw_syscall(__NR_rt_sigaction, s, as_long(&ours), 0, 8);
        }
    }
}

outcome start(const start_options& options, const exit_hooks& hooks) {
    if (the_cell.started) return {step::already_started, base::error::already};
    if (raw_syscall(__NR_arch_prctl, is_inside_a_cell) == 0)
        return {step::inside_a_cell, base::error::opnotsupp};
    the_cell.hooks = hooks;
    if (auto failed = build(options); !failed.ok()) {
        the_cell.calls.module.detach(the_cell.descriptors);
        the_cell.descriptors.close_all();
        the_cell.machine = kvm::machine();
        the_cell.arena.release();
        release_contexts();
        the_cell.current = mode::automatic;
        the_cell.contexts.count = 0;
        return failed;
    }
    take_over_signals(the_cell.actions);
    the_cell.started = true;
    return base::success;
}

outcome guard_calls() {
    const auto& cell = the_cell;
    auto& space = the_cell.space();
    return cell.calls.module.guard(
        {.begin = cell.guard.begin.value,
         .length = cell.guard.length,
         .root = space.root().value,
         .tables = cell.arena.begin().value,
         .tables_physical = space.physical_of(cell.arena.begin().value).value,
         .tables_length = cell.arena.size()});
}

void leave_parent(context* survivor, descriptor_table table) {
    auto& cell = the_cell;
    cell.process = {.shares_descriptors = table == descriptor_table::shared,
                    .wanted = cell.calls.way.name};
    memory::the_locks.reset();
    cell.actions.lock.reset();
    if (survivor && survivor->signals.actions != &cell.actions) {
        cell.actions.copy_from(*survivor->signals.actions);
        survivor->signals.actions = &cell.actions;
    }
    if (survivor) {
        survivor->kernel_area->ids = {};
        survivor->loop = {};
    }
    if (cell.hooks.forget_turns) cell.hooks.forget_turns();
    for (unsigned i = 0; i < cell.contexts.count; i++) {
        context& c = cell.context_at(i);
        c.clear_statistics();
        if (&c != survivor) release(c);
    }
    const bool parents = cell.process.shares_descriptors;
    for (unsigned i = 0; i < cell.contexts.count; i++) {
        kvm::vcpu& cpu = cell.context_at(i).cpu;
        if (!parents) cell.descriptors.close(cpu.fd());
        cpu.forget(cell.caps);
    }
    (void)cell.hooks.choose_transport(transport::exit);
    if (parents) {
        cell.machine.forget();
        cell.calls.module.forget();
    } else {
        cell.machine.destroy(cell.descriptors);
        cell.calls.module.detach(cell.descriptors);
    }
}

outcome make_own_machine(context* survivor) {
    auto& cell = the_cell;
    if (auto failed = cell.machine.create(cell.descriptors, cell.caps); !failed.ok()) return failed;
    if (auto failed = cell.space().attach_to(cell.machine); !failed.ok()) return failed;
    // A child that may no longer open /dev/xos, or has no descriptor left, works without it.
    (void)cell.hooks.choose_transport(cell.process.wanted);
    // The other contexts get a vCPU of the new VM when they are taken.
    if (survivor) {
        if (auto failed = remake_context(*survivor); !failed.ok()) return failed;
    }
    cell.stale = false;
    return base::success;
}

void close_own_descriptors() {
    for (unsigned i = 0; i < the_cell.contexts.count; i++) {
        if (the_cell.context_at(i).cpu.exists())
            the_cell.descriptors.close(the_cell.context_at(i).cpu.fd());
    }
    the_cell.machine.destroy(the_cell.descriptors);
    the_cell.calls.module.detach(the_cell.descriptors);
}

}  // namespace xos::cell
