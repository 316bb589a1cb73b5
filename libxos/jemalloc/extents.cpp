#include "libxos/jemalloc/extents.hpp"

#include "libxos/jemalloc/control.hpp"

namespace xos::memory {

namespace {

// In functions that return a bool, true means failure or refusal: see arena.<i>.extent_hooks in
// jemalloc(3).
constexpr bool ok = false, refused = true;

extents& from(extent_hooks_t* hooks) {
    return *reinterpret_cast<extents*>(hooks);
}

char* at(void* p, std::size_t offset) {
    return static_cast<char*>(p) + offset;
}

/// An extent of the arena is aligned to its size, rounded up to a power of two. For a stricter
/// alignment, an extent as large as the alignment is taken and the rest freed.
void* aligned_extent(arena& a, std::size_t size, std::size_t alignment, contents wanted) {
    if (alignment <= size) return a.allocate(size, wanted);
    void* p = a.allocate(alignment, wanted);
    if (p) a.free(at(p, size), alignment - size);
    return p;
}

void* allocate(extent_hooks_t* hooks, void* where, std::size_t size, std::size_t alignment,
               bool* zero, bool* commit, unsigned index) {
    extents& e = from(hooks);
    // jemalloc wants a reserve for later, larger each time, which it would never give back: the
    // arena itself is the reserve, for all users. If refused, jemalloc asks for exactly what it
    // needs.
    if (!*commit) return nullptr;
    // Growing in place is not attempted: jemalloc asks only when its own neighbours are taken.
    void* p = where ? nullptr
                    : aligned_extent(*e.memory, size, alignment,
                                     *zero ? contents::zeroed : contents::any);
    if (p) {
        // Without *zero the memory may still be zero, but jemalloc is not told.
        *commit = true;
        return p;
    }
    if (e.policy == when_exhausted::fail) return nullptr;
    return e.others->alloc(e.others, where, size, alignment, zero, commit, index);
}

bool deallocate(extent_hooks_t* hooks, void* p, std::size_t size, bool committed, unsigned index) {
    extents& e = from(hooks);
    if (e.memory->owns(p)) return e.memory->free(p, size) ? ok : refused;
    return e.others->dalloc ? e.others->dalloc(e.others, p, size, committed, index) : refused;
}

void destroy(extent_hooks_t* hooks, void* p, std::size_t size, bool committed, unsigned index) {
    extents& e = from(hooks);
    if (e.memory->owns(p))
        e.memory->free(p, size);
    else if (e.others->destroy)
        e.others->destroy(e.others, p, size, committed, index);
}

bool commit(extent_hooks_t* hooks, void* p, std::size_t size, std::size_t offset,
            std::size_t length, unsigned index) {
    extents& e = from(hooks);
    if (e.memory->owns(p)) return ok;
    return e.others->commit ? e.others->commit(e.others, p, size, offset, length, index) : refused;
}

bool decommit(extent_hooks_t* hooks, void* p, std::size_t size, std::size_t offset,
              std::size_t length, unsigned index) {
    extents& e = from(hooks);
    if (e.memory->owns(p) || !e.others->decommit) return refused;
    return e.others->decommit(e.others, p, size, offset, length, index);
}

/// Refused for the arena's extents: jemalloc then gives them back, which is cheaper than purging
/// and makes them available to all.
bool purge_lazily(extent_hooks_t* hooks, void* p, std::size_t size, std::size_t offset,
                  std::size_t length, unsigned index) {
    extents& e = from(hooks);
    if (e.memory->owns(p) || !e.others->purge_lazy) return refused;
    return e.others->purge_lazy(e.others, p, size, offset, length, index);
}

/// Success would promise zeroed memory.
bool purge_forcedly(extent_hooks_t* hooks, void* p, std::size_t size, std::size_t offset,
                    std::size_t length, unsigned index) {
    extents& e = from(hooks);
    if (e.memory->owns(p) || !e.others->purge_forced) return refused;
    return e.others->purge_forced(e.others, p, size, offset, length, index);
}

bool split(extent_hooks_t* hooks, void* p, std::size_t size, std::size_t first, std::size_t second,
           bool committed, unsigned index) {
    extents& e = from(hooks);
    if (e.memory->owns(p)) return ok;
    if (!e.others->split) return refused;
    return e.others->split(e.others, p, size, first, second, committed, index);
}

/// Does not call the others: jemalloc's own merge first completes the thread's state. In a thread
/// that has only freed so far, that takes memory and the lock that is held here.
bool merge(extent_hooks_t* hooks, void* p, std::size_t, void* next, std::size_t, bool, unsigned) {
    const arena& a = *from(hooks).memory;
    return a.owns(p) && a.owns(next) ? ok : refused;
}

/// Returns jemalloc's own hooks, or those that the program had installed before.
extent_hooks_t* hooks_before_ours() {
    static extent_hooks_t* const found = control::read<extent_hooks_t*>({0, "extent_hooks"});
    return found;
}

}  // namespace

extents::extents(arena& a, when_exhausted p)
    : hooks{.alloc = allocate,
            .dalloc = deallocate,
            .destroy = xos::memory::destroy,
            .commit = commit,
            .decommit = decommit,
            .purge_lazy = purge_lazily,
            .purge_forced = purge_forcedly,
            .split = split,
            .merge = merge},
      memory(&a),
      others(hooks_before_ours()),
      policy(p) {}

}  // namespace xos::memory
