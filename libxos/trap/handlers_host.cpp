#include "libxos/arch/cpu.hpp"
#include "libxos/base/errno.hpp"
#include "libxos/cell/cell.hpp"
#include "libxos/trap/handlers.hpp"

namespace xos::trap {

handler_table the_handlers;

namespace {

using memory::the_locks;

unsigned next_id = 1;

/// While one exists, readers wait: it exists for a few stores only.
class update {
  public:
    update() { the_locks.handlers_sequence.fetch_add(1, std::memory_order_acq_rel); }
    ~update() { the_locks.handlers_sequence.fetch_add(1, std::memory_order_release); }
    update(const update&) = delete;
    update& operator=(const update&) = delete;
};

/// Runs `f` in host mode, wherever the caller is. No signal handler can interrupt it there; one
/// could fork, or take a page fault that waits until the table is complete again.
template <class F>
void in_host(F f) {
    const std::uint64_t gs = arch::read_gs_base();
    const auto& arena = cell::the_cell.arena;
    if (!cell::the_cell.started || gs < arena.begin().value || gs >= arena.end().value) return f();
    auto* area = arch::current_area();
    area->host_call = [](void* argument) { (*static_cast<F*>(argument))(); };
    area->host_call_argument = &f;
    asm volatile("outl %%eax, %0" : : "i"(XOS_PORT_HOST_CALL), "a"(0) : "memory");
}

void recompute_present() {
    std::uint32_t present = 0;
    for (unsigned i = 0; i < the_handlers.vector_count; i++)
        present |= 1u << the_handlers.vectors[i].vector;
    the_handlers.vectors_present = present;
}

int insert_range(std::uint64_t begin, std::uint64_t end, const handler_entry& what, unsigned& id) {
    memory::held guard(the_locks.handlers);
    auto& t = the_handlers;
    if (t.range_count == max_ranges) return base::error::nospc;
    unsigned at = 0;
    while (at < t.range_count && t.ranges[at].end <= begin) at++;
    if (at < t.range_count && t.ranges[at].begin < end) return base::error::exist;
    id = next_id++;
    update changing;
    for (unsigned i = t.range_count; i > at; i--) t.ranges[i] = t.ranges[i - 1];
    t.ranges[at] = {begin, end, what};
    t.ranges[at].what.id = id;
    t.range_count++;
    return 0;
}

int insert_vector(unsigned vector, const handler_entry& what, unsigned& id) {
    memory::held guard(the_locks.handlers);
    auto& t = the_handlers;
    if (t.vector_count == max_vector_handlers) return base::error::nospc;
    id = next_id++;
    update changing;
    t.vectors[t.vector_count] = {vector, what};
    t.vectors[t.vector_count].what.id = id;
    t.vector_count++;
    recompute_present();
    return 0;
}

void take_out(unsigned id) {
    memory::held guard(the_locks.handlers);
    auto& t = the_handlers;
    update changing;
    for (unsigned i = 0; i < t.range_count; i++) {
        if (t.ranges[i].what.id != id) continue;
        for (unsigned k = i + 1; k < t.range_count; k++) t.ranges[k - 1] = t.ranges[k];
        t.range_count--;
        t.ranges[t.range_count] =
            {};  // the dispatcher uses the first one without checking that it exists
        return;
    }
    for (unsigned i = 0; i < t.vector_count; i++) {
        if (t.vectors[i].what.id != id) continue;
        for (unsigned k = i + 1; k < t.vector_count; k++) t.vectors[k - 1] = t.vectors[k];
        t.vector_count--;
        recompute_present();
        return;
    }
}

}  // namespace

int add_range(std::uint64_t begin, std::uint64_t end, const handler_entry& what, unsigned& id) {
    int failed = 0;
    in_host([&] { failed = insert_range(begin, end, what, id); });
    return failed;
}

int add_vector(unsigned vector, const handler_entry& what, unsigned& id) {
    int failed = 0;
    in_host([&] { failed = insert_vector(vector, what, id); });
    return failed;
}

void remove(unsigned id) {
    in_host([&] { take_out(id); });
}

}  // namespace xos::trap
