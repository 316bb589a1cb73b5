#include <new>

#include "libxos/jemalloc/control.hpp"
#include "libxos/jemalloc/extents.hpp"
#include "libxos/jemalloc/thread_caches.hpp"

namespace xos::memory {

namespace {

class heap_resource : public std::pmr::memory_resource {
  public:
    explicit heap_resource(jemalloc_heap& heap) : heap_(heap) {}

  private:
    void* do_allocate(std::size_t bytes, std::size_t alignment) override {
        void* p = heap_.allocate(bytes, alignment);
        if (!p) throw std::bad_alloc();
        return p;
    }
    void do_deallocate(void* p, std::size_t, std::size_t) override { heap_.free(p); }
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override {
        const auto* same = dynamic_cast<const heap_resource*>(&other);
        return same && &same->heap_ == &heap_;
    }

    jemalloc_heap& heap_;
};

unsigned make_jemalloc_arena(extents& e) {
    extent_hooks_t* hooks = &e.hooks;
    unsigned index = 0;
    std::size_t size = sizeof index;
    const int error = mallctl("arenas.create", &index, &size, &hooks, sizeof hooks);
    if (!error) return index;
    if (e.memory->statistics().largest_free < std::size_t{2} << 20)
        throw std::system_error(ENOMEM, std::generic_category(),
                                "a jemalloc_heap needs 2 MiB of its arena at once");
    throw std::system_error(EAGAIN, std::generic_category(), "jemalloc makes no further arena");
}

/// One of jemalloc's arenas, with everything that was ever allocated in it.
struct jemalloc_arena {
    const unsigned index;

    explicit jemalloc_arena(extents& e) : index(make_jemalloc_arena(e)) {}
    ~jemalloc_arena() { control::act({index, "destroy"}); }
    jemalloc_arena(const jemalloc_arena&) = delete;
    jemalloc_arena& operator=(const jemalloc_arena&) = delete;
};

/// Objects are aligned like malloc's, but objects of up to 8 bytes only to 8.
int flags_for(std::size_t bytes, std::size_t alignment) {
    if (alignment <= alignof(std::max_align_t) && alignment <= bytes) return 0;
    return static_cast<int>(MALLOCX_ALIGN(alignment));
}

}  // namespace

/// Members are in this order so that the caches go first; else their contents would be freed twice.
struct jemalloc_heap::state {
    extents source;
    jemalloc_arena objects;
    caches thread_caches;
    cache_set cached;
    heap_resource resource;

    state(arena& a, const options& o, jemalloc_heap& heap)
        : source(a, o.policy), objects(source), thread_caches(o.thread_caches), resource(heap) {}

    int flags() noexcept {
        return static_cast<int>(MALLOCX_ARENA(objects.index)) |
               (thread_caches == caches::none ? MALLOCX_TCACHE_NONE : cached.flags());
    }
};

jemalloc_heap::jemalloc_heap(arena& a) : jemalloc_heap(a, options{}) {}

jemalloc_heap::jemalloc_heap(arena& a, const options& o)
    : state_(std::make_unique<state>(a, o, *this)) {}

jemalloc_heap::~jemalloc_heap() = default;

void* jemalloc_heap::allocate(std::size_t bytes, std::size_t alignment) noexcept {
    return mallocx(bytes ? bytes : 1, state_->flags() | flags_for(bytes, alignment));
}

void* jemalloc_heap::allocate_zeroed(std::size_t bytes, std::size_t alignment) noexcept {
    return mallocx(bytes ? bytes : 1, state_->flags() | flags_for(bytes, alignment) | MALLOCX_ZERO);
}

void* jemalloc_heap::reallocate(void* p, std::size_t bytes) noexcept {
    if (!p) return allocate(bytes);
    return rallocx(p, bytes ? bytes : 1, state_->flags());
}

void jemalloc_heap::free(void* p) noexcept {
    if (p) dallocx(p, state_->flags());
}

std::size_t jemalloc_heap::usable_size(const void* p) noexcept {
    return sallocx(p, 0);
}

void jemalloc_heap::purge() noexcept {
    state_->cached.flush();
    control::act({state_->objects.index, "purge"});
}

std::pmr::memory_resource& jemalloc_heap::resource() noexcept {
    return state_->resource;
}

}  // namespace xos::memory
