#include <algorithm>
#include <memory>
#include <vector>
#include <xos/sched/fiber_local.hpp>

#include "libxos/sched/core.hpp"

namespace xos::sched::detail {

struct local_table {
    struct value {
        std::uint64_t key = 0;
        void* object = nullptr;
        void (*destroy)(void*) = nullptr;
    };
    std::vector<value> values;
    ~local_table() {
        while (!values.empty()) {
            const value last = values.back();
            values.pop_back();
            last.destroy(last.object);
        }
    }
};

namespace {

/// A plain thread's.
thread_local struct thread_execution : execution {
    ~thread_execution() {
        delete std::exchange(locals, nullptr);
        if (current_execution == this) current_execution = &plain_thread;
    }
} of_this_thread;

}  // namespace

execution& adopt_thread() {
    return *(current_execution = &of_this_thread);
}

void destroy_locals(execution& e) noexcept {
    // A destructor may make further ones.
    while (e.locals) delete std::exchange(e.locals, nullptr);
}

std::uint64_t new_local_key() noexcept {
    static std::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

void* find_local(std::uint64_t key) noexcept {
    const local_table* const table = current().locals;
    if (!table) return nullptr;
    for (const auto& v : table->values) {
        if (v.key == key) return v.object;
    }
    return nullptr;
}

void add_local(std::uint64_t key, void* object, void (*destroy)(void*)) {
    execution& e = current();
    if (!e.locals) e.locals = new local_table;
    e.locals->values.push_back({key, object, destroy});
}

}  // namespace xos::sched::detail
