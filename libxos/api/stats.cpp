#include <xos/cell.hpp>
#include <xos/stats.hpp>

#include "libxos/api/stats_text.hpp"
#include "libxos/cell/cell.hpp"

namespace xos {

statistics stats() {
    statistics s;
    // In ring3 some counters are where only kernel-side code and the host can read them.
    host_call([&s] { api::collect(s); });
    return s;
}

std::uint64_t thread_exits() noexcept {
    const std::uint64_t gs = arch::read_gs_base();
    for (unsigned i = 0; i < cell::the_cell.contexts.count; i++) {
        const cell::context& c = cell::the_cell.context_at(i);
        if (reinterpret_cast<std::uint64_t>(c.area) != gs &&
            reinterpret_cast<std::uint64_t>(&c) != gs) {
            continue;
        }
        return c.statistics.runs;
    }
    return 0;
}

std::string to_string(const statistics& s) {
    std::string text;
    api::describe(
        s,
        [](const char* part, std::size_t n, void* to) {
            static_cast<std::string*>(to)->append(part, n);
        },
        &text);
    return text;
}

}  // namespace xos
