#include "libxos/base/futex_lock.hpp"
#include "libxos/trap/handlers.hpp"

namespace xos::trap {

handler_table the_handlers;

namespace {

base::futex_lock writers;
unsigned next_id = 1;

/// Readers wait while it exists, so it holds the lock for a few stores only.
class update {
  public:
    update() { the_handlers.sequence.fetch_add(1, std::memory_order_acq_rel); }
    ~update() { the_handlers.sequence.fetch_add(1, std::memory_order_release); }
    update(const update&) = delete;
    update& operator=(const update&) = delete;
};

void recompute_present() {
    std::uint32_t present = 0;
    for (unsigned i = 0; i < the_handlers.vector_count; i++)
        present |= 1u << the_handlers.vectors[i].vector;
    the_handlers.vectors_present = present;
}

}  // namespace

int add_range(std::uint64_t begin, std::uint64_t end, const handler_entry& what, unsigned& id) {
    base::lock_guard guard(writers);
    auto& t = the_handlers;
    if (t.range_count == max_ranges) return 28;
    unsigned at = 0;
    while (at < t.range_count && t.ranges[at].end <= begin) at++;
    if (at < t.range_count && t.ranges[at].begin < end) return 17;
    id = next_id++;
    update changing;
    for (unsigned i = t.range_count; i > at; i--) t.ranges[i] = t.ranges[i - 1];
    t.ranges[at] = {begin, end, what};
    t.ranges[at].what.id = id;
    t.range_count++;
    return 0;
}

int add_vector(unsigned vector, const handler_entry& what, unsigned& id) {
    base::lock_guard guard(writers);
    auto& t = the_handlers;
    if (t.vector_count == max_vector_handlers) return 28;
    id = next_id++;
    update changing;
    t.vectors[t.vector_count] = {vector, what};
    t.vectors[t.vector_count].what.id = id;
    t.vector_count++;
    recompute_present();
    return 0;
}

void remove(unsigned id) {
    base::lock_guard guard(writers);
    auto& t = the_handlers;
    update changing;
    for (unsigned i = 0; i < t.range_count; i++) {
        if (t.ranges[i].what.id != id) continue;
        for (unsigned k = i + 1; k < t.range_count; k++) t.ranges[k - 1] = t.ranges[k];
        t.range_count--;
        t.ranges[t.range_count] =
            {};  // the dispatcher looks at the first without asking whether it is one
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

}  // namespace xos::trap
