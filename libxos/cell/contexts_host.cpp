// The pool of contexts: making one costs a vCPU, taking one costs a lock.
#include <linux/mman.h>

#include "libxos/base/bytes.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/base/raw_syscall.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/cell/layout.hpp"
#include "libxos/cell/stubs.hpp"

extern "C" {
std::uint64_t xos_contexts_begin = 0, xos_contexts_size = 0;
}

namespace xos::cell {

static_assert(offsetof(arch::guest_area, pending) + offsetof(xos_frame, call) ==
              offsetof(arch::guest_area, number));
static_assert(offsetof(arch::guest_area, number) + offsetof(xos_call, arguments) ==
              offsetof(arch::guest_area, arguments));
static_assert(offsetof(arch::guest_area, number) + offsetof(xos_call, result) ==
              offsetof(arch::guest_area, result));

using base::outcome;
using base::step;

namespace {

std::uint64_t landing_for(unsigned ist) {
    switch (ist) {
        case ist_page_fault:
            return address_of(xos_landing_page_fault);
        case ist_protection:
            return address_of(xos_landing_protection);
        case ist_opcode:
            return address_of(xos_landing_opcode);
        case ist_breakpoint:
            return address_of(xos_landing_breakpoint);
        default:
            return address_of(xos_landing_other);
    }
}

/// pvm: above the top of each IST stack lies the IRET frame that its ring-0 stub returns through.
void build_landing(std::uint64_t top, unsigned ist) {
    auto* frame = reinterpret_cast<std::uint64_t*>(top);
    frame[0] = landing_for(ist);
    frame[1] = arch::selector::user_code;
    frame[2] = arch::rflags::fixed | arch::rflags::interrupt;
    frame[3] = top + XOS_LANDING_ABOVE_TOP;
    frame[4] = arch::selector::user_data;
}

void fill_area(arch::guest_area& area, hva trap_stack, hva syscall_stack) {
    area.self = &area;
    area.trap_stack_base = trap_stack.value;
    area.trap_stack_size = trap_stack_size;
    // The frame is 184 bytes: this aligns the dispatcher's call.
    area.trap_stack_top = trap_stack.value + trap_stack_size - 8;
    // The entry pushes seven registers: this aligns the call behind them.
    area.syscall_stack_top = syscall_stack.value + syscall_stack_size - 8;
}

outcome make_memory(context& c) {
    auto& arena = the_cell.arena;
    const hva kernel = arena.allocate_kernel(kernel_bytes_per_context);
    const hva user = arena.allocate_user(user_bytes_per_context);
    if (!kernel.value || !user.value) return {step::too_many_vcpus, base::error::nomem};

    const hva ist_stacks = kernel + area_bytes, syscall_stack = ist_stacks + ist_bytes;
    const hva trap_stack = user + area_bytes;
    auto* first_page = reinterpret_cast<kernel_page*>(kernel.value);
    c.kernel_area = &first_page->area;
    c.area = the_cell.is_ring3() ? reinterpret_cast<arch::guest_area*>(user.value) : c.kernel_area;
    fill_area(*c.kernel_area, trap_stack, syscall_stack);
    if (c.area != c.kernel_area) fill_area(*c.area, trap_stack, syscall_stack);
    c.kernel_area->is_ring3 = the_cell.is_ring3();
    c.kernel_area->root = the_cell.space().root().value;
    c.kernel_area->vcpu = c.id;
    the_cell.contexts.areas[c.id] = c.kernel_area;

    auto& tables = first_page->tables;
    c.tables = &tables;
    c.processor_number = 0;
    arch::fill(tables, reinterpret_cast<std::uint64_t>(&tables.tss), XOS_PORT_FIRST);
    for (unsigned ist = 1; ist <= ist_count; ist++) {
        const std::uint64_t top = ist_stacks.value + ist_stack_size * ist - ist_landing_size;
        tables.tss.ist[ist - 1] = top;
        if (the_cell.current == mode::pvm) build_landing(top, ist);
    }
    tables.tss.rsp[0] = c.kernel_area->syscall_stack_top;
    return base::success;
}

outcome make_vcpu(context& c) {
    if (!c.cpu.exists()) {
        auto failed = c.cpu.create(the_cell.machine, the_cell.descriptors, the_cell.caps, c.id);
        if (!failed.ok()) return failed;
    }
    const auto* page = reinterpret_cast<kernel_page*>(c.kernel_area);
    const bool ring3 = the_cell.is_ring3();
    auto failed = c.cpu.prepare(
        the_cell.caps, {.cr3 = c.kernel_area->root,
                        .tags_translations = the_cell.guest.tags_translations,
                        .idt = the_cell.guest.interrupt_table.value,
                        .gdt = reinterpret_cast<std::uint64_t>(&page->tables.gdt),
                        .tss = reinterpret_cast<std::uint64_t>(&page->tables.tss),
                        .syscall_entry = address_of(ring3 ? xos_syscall_ring3 : xos_syscall_flat),
                        .gs_base = reinterpret_cast<std::uint64_t>(c.area),
                        .kernel_gs_base = reinterpret_cast<std::uint64_t>(c.kernel_area),
                        .privilege = the_cell.current == mode::ring0 ? 0u : 3u,
                        .kernel_at_ring0 = the_cell.current != mode::pvm});
    if (!failed.ok() || !the_cell.calls.module.attached()) return failed;
    const auto* frame = reinterpret_cast<const xos_frame*>(&c.kernel_area->pending);
    if (the_cell.calls.module.runs_vcpus()) c.cpu.run_through(the_cell.calls.module, c.id);
    return the_cell.calls.module.add_vcpu(c.id, frame);
}

void reset_for_thread(context& c) {
    c.begin_thread(the_cell.actions);
    clear_poll(c);
    c.kernel_area->ids = {};
    c.stop_at_once(false);
    if (c.kernel_area->space) {
        c.kernel_area->space = 0;
        c.kernel_area->root = the_cell.space().root().value;
        c.cpu.write_root(the_cell.space().root());
    }
}

}  // namespace

outcome reserve_contexts(unsigned count) {
    const std::uint64_t bytes = std::uint64_t{count} * XOS_CONTEXT_STRIDE;
    long r = base::raw_syscall(__NR_mmap, 0, static_cast<long>(bytes + XOS_CONTEXT_STRIDE),
                               PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                               -1, 0);
    if (base::is_error(r)) return {step::reserve_memory, static_cast<int>(-r)};
    xos_contexts_begin = hva{static_cast<std::uint64_t>(r)}.align_up(XOS_CONTEXT_STRIDE).value;
    base::raw_syscall(__NR_madvise, static_cast<long>(xos_contexts_begin), static_cast<long>(bytes),
                      MADV_NOHUGEPAGE);
    base::raw_syscall(__NR_madvise, static_cast<long>(xos_contexts_begin), static_cast<long>(bytes),
                      MADV_DONTDUMP);
    xos_contexts_size = bytes;
    the_cell.contexts.most = count;
    return base::success;
}

outcome make_context(unsigned id) {
    context& c = the_cell.context_at(id);
    base::raw_syscall(__NR_madvise, base::as_long(&c), XOS_CONTEXT_STRIDE, MADV_DODUMP);
    c.self = &c;
    c.id = id;
    c.loop_stack = reinterpret_cast<std::uint64_t>(&c) + XOS_CONTEXT_STRIDE - 64;
    if (auto failed = make_memory(c); !failed.ok()) return failed;
    return make_vcpu(c);
}

void update_processor_number(context& c, std::uint32_t number) {
    c.processor_number = number;
    c.tables->gdt[arch::selector::processor_number / 8] = arch::data_limit(number);
    c.cpu.write_msr(arch::msr::tsc_aux, number);
}

outcome remake_context(context& c) {
    c.stop = {};
    // TSC_AUX of a new vCPU is 0, and the first run tells it the number.
    c.processor_number = 0;
    c.tables->gdt[arch::selector::processor_number / 8] = arch::data_limit(0);
    return make_vcpu(c);
}

void release_contexts() {
    if (!xos_contexts_size) return;
    the_cell.context_at(0).cpu.forget(the_cell.caps);
    base::raw_syscall(__NR_munmap, static_cast<long>(xos_contexts_begin),
                      static_cast<long>(xos_contexts_size));
    xos_contexts_begin = xos_contexts_size = 0;
}

bool only_thread_inside() {
    unsigned inside = 0;
    for (unsigned i = 0; i < the_cell.contexts.count; i++)
        inside += __atomic_load_n(&the_cell.context_at(i).busy, __ATOMIC_ACQUIRE) != 0;
    return inside == 1;
}

context* take_context(outcome& failure) {
    memory::held guard(memory::the_locks.contexts);
    for (unsigned i = 0; i < the_cell.contexts.count; i++) {
        context& c = the_cell.context_at(i);
        std::uint32_t free = 0;
        if (!__atomic_compare_exchange_n(&c.busy, &free, 1, false, __ATOMIC_ACQUIRE,
                                         __ATOMIC_RELAXED)) {
            continue;
        }
        // A context that fork copied without its thread has no vCPU in this process's VM yet.
        if (!c.cpu.exists()) {
            if (failure = remake_context(c); !failure.ok()) {
                release(c);
                return nullptr;
            }
        }
        reset_for_thread(c);
        return &c;
    }
    const unsigned id = the_cell.contexts.count;
    if (id == the_cell.contexts.most) {
        failure = {step::too_many_vcpus, base::error::again};
        return nullptr;
    }
    if (failure = make_context(id); !failure.ok()) return nullptr;
    context& c = the_cell.context_at(id);
    c.busy = 1;
    __atomic_store_n(&the_cell.contexts.count, id + 1, __ATOMIC_RELEASE);
    reset_for_thread(c);
    return &c;
}

}  // namespace xos::cell
