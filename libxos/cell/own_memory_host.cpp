#include "libxos/cell/cell.hpp"
#include "libxos/cell/own_memory.hpp"
#include "libxos/cell/stubs.hpp"

extern "C" {
// The bounds of the library or program that this is linked into (symbols of ld).
[[gnu::visibility("hidden")]] extern const char __ehdr_start[], _end[];
}

namespace xos::cell {

namespace {

struct extent {
    std::uint64_t begin, end;
};

extent own_image() {
    // Unmodified programs are served by a library or a loader that is entirely libxos's.
    if (the_cell.program.native_children) return {address_of(__ehdr_start), address_of(_end)};
    return {gva{address_of(xos_stubs_begin)}.align_down(page_size).value,
            gva{address_of(xos_stubs_end)}.align_up(page_size).value};
}

}  // namespace

bool overlaps_own_memory(gva begin, std::uint64_t length) {
    const auto overlaps = [&](std::uint64_t own_begin, std::uint64_t own_end) {
        return begin.value < own_end && begin.value + length > own_begin;
    };
    if (begin.value + length < begin.value) return false;
    const extent image = own_image();
    if (overlaps(image.begin, image.end)) return true;
    if (overlaps(the_cell.arena.begin().value, the_cell.arena.end().value)) return true;
    if (overlaps(xos_contexts_begin, xos_contexts_begin + xos_contexts_size)) return true;
    if (the_cell.space().overlaps_own(begin, length)) return true;
    for (unsigned i = 0; i < the_cell.contexts.count; i++) {
        const kvm::vcpu& cpu = the_cell.context_at(i).cpu;
        if (!cpu.exists()) continue;
        const std::uint64_t page = cpu.run_page_address();
        if (overlaps(page, page + the_cell.caps.run_size)) return true;
    }
    return false;
}

}  // namespace xos::cell
