// Memory that the application manages instead of Linux: arenas.
//
// An arena is reserved from Linux once and then handed out in extents of 4 KiB to 1 GiB, address
// and frame in one: an extent is ordinary memory at an ordinary address, valid inside and outside,
// in system calls and for other threads, and its guest-physical frame is known, so that a view
// (`xos/vm.hpp`) can map it a second time. Inside, allocating and freeing make no exit.
//
//     xos::memory::arena pool({.bytes = 1 << 30, .populate = true});
//     void* p = pool.allocate(64 << 10, xos::memory::contents::zeroed);
//     pool.free(p, 64 << 10);
//
//     xos::memory::resource r(pool);                  // std::pmr
//     std::pmr::unsynchronized_pool_resource small(&r);
//     std::pmr::vector<int> numbers(&small);
//
// Each vCPU keeps the small extents that it freed last. A buddy allocator underneath (Knowlton, "A
// fast storage allocator", CACM 8(10), 1965) hands out the lowest block that will do, and knows
// what is zero. docs/memory.md has more.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <xos/types.hpp>

namespace xos::vm {
class arena;
}

namespace xos::memory {

/// What an extent holds when it is handed out.
enum class contents {
    any,     ///< whatever was there before
    zeroed,  ///< what is not known to be zero is zeroed now
};

/// What an arena holds, in bytes. `allocated + free == usable`, always.
struct arena_statistics {
    std::uint64_t reserved = 0;   ///< bytes of address space
    std::uint64_t usable = 0;     ///< of them, grown so far
    std::uint64_t allocated = 0;  ///< handed out
    std::uint64_t free = 0;
    std::uint64_t clean_free = 0;    ///< of them, known to be zero
    std::uint64_t largest_free = 0;  ///< the largest extent that can be had without growing
    /// Free blocks of 4 KiB << n.
    std::array<std::uint64_t, 19> free_blocks{};
};

/// At most 64 arenas exist at the same time. All functions may be called on any thread, at the same
/// time. A forked child has a copy, which Linux makes on write.
class arena {
  public:
    struct options {
        /// At least 1; rounded up to 64 MiB.
        std::size_t bytes = 0;
        /// Whether all of it is resident, and known to the guest, before the constructor returns.
        bool populate = false;
        /// Whether memory comes from the machine's pool of huge pages (hugetlbfs), if that has
        /// enough. If not, transparent huge pages are used as far as Linux gives them.
        bool huge_pages = false;
        /// NUMA node to take memory from; -1: any.
        int node = -1;
        /// Bytes. When more free memory than this is dirty (not zero), half of it goes back to
        /// Linux.
        std::size_t keep_dirty = ~std::size_t{0};
        /// Whether a thread outside the cell zeroes what is freed, up to 2 MiB at a time.
        bool zero_in_background = false;
    };

    /// Call after start(), inside (one exit) or outside.
    /// @throws std::system_error not_started, bad_argument for 0 bytes or an unknown node,
    ///         no_memory, no_room when 64 arenas exist.
    explicit arena(const options& o);
    /// Gives all memory back to Linux, also what is still allocated. The addresses are kept for
    /// arenas to come. Call inside or outside; no thread may use the arena any more.
    ~arena();
    arena(const arena&) = delete;
    arena& operator=(const arena&) = delete;

    /// Hands out an extent. Call inside, without an exit, or outside, also in a fault handler.
    /// @param bytes  1 to 1 GiB, rounded up to 4 KiB.
    /// @return its address, a multiple of `bytes` rounded up to a power of two; nullptr when
    ///         nothing large enough is left.
    [[nodiscard]] void* allocate(std::size_t bytes, contents wanted = contents::any) noexcept;

    /// Gives back an extent or a part of one, in whole pages. Call as allocate().
    /// @return false, and nothing has changed, if any of it is not allocated here.
    bool free(void* begin, std::size_t bytes) noexcept;

    /// Whether an address is one of this arena's, allocated or not. Call anywhere.
    [[nodiscard]] bool owns(const void* p) const noexcept;
    /// The guest-physical address of a byte of this arena, for vm::map(), or gpa{0}. Call anywhere.
    [[nodiscard]] gpa frame_of(const void* p) const noexcept;

    /// Gives free memory that is not zero back to Linux until at most `keep` bytes of it are left.
    /// Call inside (one exit) or outside.
    /// @return how many bytes it was.
    std::size_t trim(std::size_t keep = 0);

    /// The numbers now. Call inside (one exit) or outside.
    [[nodiscard]] arena_statistics statistics() const;
    /// Whether the allocator's structures agree with each other. This is slow, and for tests and
    /// debugging. Call as statistics().
    [[nodiscard]] bool check() const;

  private:
    vm::arena* core_;  // out of reach of code at CPL 3, as in mode ring3
    unsigned id_;
    bool prefer_clean_;
    gva begin_;
    gpa frames_;
    std::uint64_t length_;
};

/// The numbers of the arena that serves anonymous mappings of this process; all are zero before the
/// first mapping. Call inside (one exit) or outside.
[[nodiscard]] arena_statistics process_arena_statistics();
/// arena::check() of that arena. Call as process_arena_statistics().
[[nodiscard]] bool check_process_arena();

/// Extents of an arena for std::pmr containers and pools. Alignments up to 1 GiB. Call as
/// arena::allocate(). Throws std::bad_alloc when the arena is exhausted.
class resource : public std::pmr::memory_resource {
  public:
    explicit resource(arena& a) : arena_(a) {}

  private:
    void* do_allocate(std::size_t bytes, std::size_t alignment) override;
    void do_deallocate(void* p, std::size_t bytes, std::size_t alignment) override;
    bool do_is_equal(const std::pmr::memory_resource& other) const noexcept override;

    arena& arena_;
};

}  // namespace xos::memory

#endif  // C++20
