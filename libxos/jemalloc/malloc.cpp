// Puts jemalloc's arenas for malloc on an arena of libxos.
#include <atomic>
#include <new>

#include "libxos/jemalloc/control.hpp"
#include "libxos/jemalloc/extents.hpp"

namespace xos::memory {

namespace {

constexpr std::size_t administration = std::size_t{2} << 20;

/// jemalloc makes one more arena, for all large objects, when the first object of this size is
/// allocated. Its hooks can be changed only then, so one object is allocated; nobody touches its
/// memory.
void make_arena_of_large_objects() {
    static void* first = nullptr;
    const auto threshold = control::read<std::size_t>("opt.oversize_threshold");
    if (threshold && !first) first = mallocx(threshold, 0);
}

void install(extents& e, unsigned jemalloc_arena) {
    const control::name hooks(jemalloc_arena, "extent_hooks");
    control::check(control::write(hooks, &e.hooks), hooks);
}

}  // namespace

void use_for_malloc(arena& a, when_exhausted policy) {
    // Never destroyed: memory is freed until the very end of the process.
    alignas(extents) static unsigned char place[sizeof(extents)];
    // A failed attempt may be repeated.
    static std::atomic<bool> installed = false;
    struct undo {
        bool needed = true;
        ~undo() {
            if (needed) installed = false;
        }
    };
    if (installed.exchange(true))
        throw std::system_error(EALREADY, std::generic_category(),
                                "use_for_malloc() can be called only once");
    undo attempt;
    const auto arenas = control::read<unsigned>("opt.narenas");
    const arena_statistics s = a.statistics();
    if (s.reserved - s.allocated < (arenas + 1) * administration)
        throw std::system_error(
            ENOMEM, std::generic_category(),
            "use_for_malloc() needs 2 MiB for each of jemalloc's " + std::to_string(arenas) +
                " arenas; make the arena larger, or set narenas in MALLOC_CONF");
    make_arena_of_large_objects();
    auto* e = new (place) extents(a, policy);
    attempt.needed = false;
    // The arena of large objects is the next one, if it exists.
    const bool one_more = control::read<std::size_t>("opt.oversize_threshold") != 0 &&
                          control::read<unsigned>("arenas.narenas") > arenas;
    for (unsigned i = 0; i < arenas + one_more; i++) install(*e, i);
}

}  // namespace xos::memory
