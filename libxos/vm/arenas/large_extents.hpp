// Large extents of the process arena, each in one piece from mmap(2) to munmap(2): malloc takes
// them for large blocks, and often gives them back untouched.
//
// A free extent is kept for the next request of its size, so that neither call costs more for
// larger sizes. Its windows of 2 MiB are translated on first touch, and the touched ones are
// recorded here. Under the address space's lock, except find() and note_touched().
#pragma once

#include <xos/types.hpp>

namespace xos::vm {

class large_extents {
  public:
    /// The smallest large extent, in pages.
    static constexpr std::uint64_t least = 2 * large_page_size / page_size;
    static constexpr std::uint64_t window = large_page_size / page_size;
    static constexpr std::uint64_t most_pages = huge_page_size / page_size;

    struct extent {
        std::uint64_t first = 0, count = 0;  ///< pages; count 0: nothing
        bool is_free = false;
        unsigned ever_touched = 0;  ///< windows since Linux's memory there was new
        std::uint64_t touched[most_pages / window / 64] = {};

        bool contains(std::uint64_t page) const { return page - first < count; }
    };

    /// Takes a free extent of this size, which is then the caller's; null if there is none.
    extent* take(std::uint64_t count) {
        for (extent& e : extents_) {
            if (e.count != count || !e.is_free) continue;
            e.is_free = false;
            return &e;
        }
        return nullptr;
    }

    /// Records an extent that was allocated; null if there is no room for that.
    extent* add(std::uint64_t first, std::uint64_t count) {
        for (extent& e : extents_) {
            if (e.count != 0) continue;
            e = {.first = first, .count = count};
            some_ = true;
            return &e;
        }
        return nullptr;
    }

    /// Returns the extent that has exactly these pages and is in use, or null.
    extent* exactly(std::uint64_t first, std::uint64_t count) {
        for (extent& e : extents_) {
            if (e.first == first && e.count == count && !e.is_free) return &e;
        }
        return nullptr;
    }

    /// Forgets an extent, parts of which will be treated differently from now on.
    void forget(std::uint64_t first, std::uint64_t count) {
        if (!some_) [[likely]]
            return;
        for (extent& e : extents_) {
            const bool overlaps = e.first < first + count && first < e.first + e.count;
            if (e.count != 0 && !e.is_free && overlaps) e.count = 0;
        }
    }

    /// Calls f(extent) for every free extent; no extent is kept then.
    template <class F>
    bool empty(F&& f) {
        bool some = false;
        if (!some_) return false;
        for (extent& e : extents_) {
            if (e.count == 0 || !e.is_free) continue;
            f(e);
            e.count = 0;
            some = true;
        }
        return some;
    }

    bool has_free(std::uint64_t first, std::uint64_t count) const {
        if (!some_) [[likely]]
            return false;
        for (const extent& e : extents_) {
            if (e.count != 0 && e.is_free && e.first < first + count && first < e.first + e.count)
                return true;
        }
        return false;
    }

    extent* find(std::uint64_t page) {
        for (extent& e : extents_) {
            if (e.contains(page)) return &e;
        }
        return nullptr;
    }

    static void note_touched(extent& e, std::uint64_t page) {
        const std::uint64_t n = (page - e.first) / window;
        __atomic_fetch_or(&e.touched[n / 64], std::uint64_t{1} << n % 64, __ATOMIC_RELAXED);
    }

    /// Calls f(first page) for every touched window; all count as untouched then.
    template <class F>
    static void for_each_touched(extent& e, F&& f) {
        for (std::uint64_t word = 0; word * 64 * window < e.count; word++) {
            std::uint64_t bits = __atomic_exchange_n(&e.touched[word], 0, __ATOMIC_RELAXED);
            for (; bits; bits &= bits - 1)
                f(e.first + (word * 64 + static_cast<unsigned>(__builtin_ctzl(bits))) * window);
        }
    }

  private:
    static constexpr unsigned most = 32;
    bool some_ = false;  ///< whether there ever was one
    extent extents_[most];
};

}  // namespace xos::vm
