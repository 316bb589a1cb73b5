// jemalloc on an arena: small objects, reallocation and thread caches above extents of one's own.
//
// A heap for one subsystem, which leaves nothing behind when it goes:
//
//     xos::memory::arena pool({.bytes = 1 << 30});
//     xos::memory::jemalloc_heap heap(pool);
//     char* text = static_cast<char*>(heap.allocate(100));
//     text = static_cast<char*>(heap.reallocate(text, 10'000));
//     heap.free(text);
//     std::pmr::vector<int> numbers(&heap.resource());
//
// Or the memory of malloc and new of the whole program:
//
//     static auto& pool = *new xos::memory::arena({.bytes = 4ul << 30});   // never destroyed
//     xos::memory::use_for_malloc(pool);
//
// This is a library of its own: link `xos::jemalloc` beside libxos. It needs jemalloc 5.3, which
// becomes the program's malloc by that. All of this works inside and outside, on any thread, and in
// the child of a fork, which has its own copy. Inside, jemalloc gets and returns extents without an
// exit.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstddef>
#include <memory>
#include <memory_resource>
#include <xos/memory.hpp>

namespace xos::memory {

/// What happens when an arena has no extent that is large enough. An extent holds 1 GiB at most.
enum class when_exhausted {
    fail,       ///< the allocation fails, as malloc fails
    use_linux,  ///< the extent comes from where jemalloc has it from without libxos
};

/// From now on jemalloc takes new extents for malloc, calloc, realloc, new and so on from `a`,
/// whichever thread asks, and gives them back there. It goes on using the extents that it holds
/// already.
///
/// Each of jemalloc's own arenas (`narenas`, four a processor) takes 2 MiB for its administration
/// at once. Extents of 8 MiB and more return to `a` when they are freed, smaller ones after some
/// seconds without use.
/// @param a  must live as long as the process.
/// @throws std::system_error EALREADY the second time, ENOMEM when `a` is too small for that.
void use_for_malloc(arena& a, when_exhausted policy = when_exhausted::fail);

class jemalloc_heap {
  public:
    enum class caches {
        per_thread,  ///< a thread allocates and frees small objects without a lock
        none,        ///< nothing stays with a thread: for heaps that many threads use rarely
    };
    struct options {
        caches thread_caches = caches::per_thread;
        when_exhausted policy = when_exhausted::fail;
    };

    /// Takes 2 MiB of `a` for jemalloc's administration. `a` must outlive the heap.
    /// @throws std::system_error ENOMEM when `a` has not got that, EAGAIN when jemalloc has no heap
    ///         left (about 4000 may exist).
    explicit jemalloc_heap(arena& a);
    jemalloc_heap(arena& a, const options& o);
    /// Frees everything that was allocated here. No other thread may be using the heap.
    ~jemalloc_heap();
    jemalloc_heap(const jemalloc_heap&) = delete;
    jemalloc_heap& operator=(const jemalloc_heap&) = delete;

    /// @param alignment  a power of two.
    /// @return nullptr when the arena is exhausted. 0 bytes count as 1.
    [[nodiscard]] void* allocate(std::size_t bytes,
                                 std::size_t alignment = alignof(std::max_align_t)) noexcept;
    [[nodiscard]] void* allocate_zeroed(std::size_t bytes,
                                        std::size_t alignment = alignof(std::max_align_t)) noexcept;
    /// As realloc(3): on failure nullptr, and `p` is as it was. Only the usual alignment is kept.
    [[nodiscard]] void* reallocate(void* p, std::size_t bytes) noexcept;
    /// Frees an object of this heap, on any thread; nullptr is fine.
    void free(void* p) noexcept;

    /// How many bytes may be used there, at least as many as were asked for.
    [[nodiscard]] static std::size_t usable_size(const void* p) noexcept;

    /// Gives the extents that hold no object back to the arena, without waiting for them to age.
    /// What other threads have in their caches counts as used.
    void purge() noexcept;

    /// The heap for std::pmr containers and pools. Lives as long as the heap.
    [[nodiscard]] std::pmr::memory_resource& resource() noexcept;

  private:
    struct state;
    std::unique_ptr<state> state_;
};

}  // namespace xos::memory

#endif  // C++20
