// Hands out pages, numbered from 0, in blocks of 2^order pages aligned to their size.
//
//     buddy pages;
//     pages.attach(zeroed, limit);
//     pages.add(0, 1 << 18, true);
//     const auto page = pages.allocate(0, buddy::preference::clean);
//     if (page && !pages.is_clean(*page)) { /* zero it */ }
//     pages.free(*page, 1, false);
//
// A page is clean while its contents are known to be zero. Each page has a bit for that, and each
// free block is in one of two sets for its order: entirely clean, or not. Buddies merge whatever
// they hold, so a block that is not entirely clean may hold clean pages, which are found again when
// it is split.
//
// The lowest block of an order is handed out first: allocations gather there, and large blocks
// above stay whole. Last in, first out would be a little cheaper, but with extents of all sizes
// that come and go it breaks everything into pieces before half of the memory is allocated.
//
// Runs in any mode: no libc, no allocation. Nothing here locks; the caller does. A call that
// fails has changed nothing. A range of no pages is fine everywhere if it begins in range.
//
// The binary buddy system is Knuth's, TAOCP vol. 1, 2.5, algorithms R and S.
#pragma once

#include <cstdint>
#include <optional>

#include "libxos/memory/bit_tree.hpp"

namespace xos::memory {

class buddy {
  public:
    static constexpr unsigned max_order = 18;  ///< 1 GiB of 4 KiB pages
    static constexpr std::uint64_t max_pages = ~std::uint32_t{0};

    struct block {
        std::uint64_t first;
        unsigned order;
    };

    constexpr buddy() = default;
    buddy(const buddy&) = delete;
    buddy& operator=(const buddy&) = delete;

    /// The bytes that attach() needs for this many pages: 1.9 a page.
    static constexpr std::uint64_t metadata_bytes(std::uint64_t pages) {
        std::uint64_t sets = 0;
        for (unsigned order = 0; pages && order <= max_order; ++order)
            sets += 2 * bit_tree::words(blocks(pages, order));
        return words(pages) * sizeof(page_bits) + sets * 8 + (pages + 7) / 8 * 8;
    }

    /// Allows pages [0, `pages`) to be added from now on; at most max_pages. `metadata` is zeroed,
    /// aligned to 8 bytes, the caller's, and outlives the object. An added page causes writes to
    /// three bits of it, the first page of a free block to a byte, and each set it is in to a few
    /// words. Metadata of pages below the lowest or above the highest added one is never read. Call
    /// it once for an object.
    void attach(void* metadata, std::uint64_t pages);

    /// Makes pages free for the first time. False if one was added before or is out of range.
    bool add(std::uint64_t first, std::uint64_t count, bool clean);

    /// Which pages to take first when both kinds are free, even if a larger block must be split.
    enum class preference { clean, dirty };

    /// Returns the first page of a block, which is now the caller's. What is known of its contents
    /// stays as it was: see is_clean().
    /// @param clean  told whether all of it is known to be zero
    std::optional<std::uint64_t> allocate(unsigned order, preference want, bool& clean);
    std::optional<std::uint64_t> allocate(unsigned order, preference want) {
        bool clean;
        return allocate(order, want, clean);
    }

    /// Allocates exactly these pages; false if one of them is not free.
    bool take(std::uint64_t first, std::uint64_t count);

    /// Takes back allocated pages, however they were allocated: parts of a block, or several.
    /// `clean` says whether all of them are. False if one of them is not allocated.
    bool free(std::uint64_t first, std::uint64_t count, bool clean);

    /// Whether all these pages are allocated.
    bool is_allocated(std::uint64_t first, std::uint64_t count = 1) const {
        if (!in_one_word(first, count)) [[unlikely]]
            return each_is_allocated(first, count);
        const std::uint64_t mask = mask_of(first, count);
        return (bits_[first / 64].held & mask) == mask;
    }

    /// Whether all these pages, free or allocated, are known to be zero. False if one was never
    /// added.
    bool is_clean(std::uint64_t first, std::uint64_t count) const;
    bool is_clean(std::uint64_t page) const {
        return page < pages_ && bits_[page / 64].clean & bit_of(page);
    }

    /// Returns the end, at most `end`, of the run of pages that are like the first one: known to be
    /// zero, or not.
    std::uint64_t end_of_alike(std::uint64_t first, std::uint64_t end) const;

    /// Records that allocated pages are about to be written.
    void set_used(std::uint64_t first, std::uint64_t count = 1) {
        if (!in_one_word(first, count)) [[unlikely]]
            return set_each_used(first, count);
        bits_[first / 64].clean &= ~mask_of(first, count);
    }

    /// Records what these pages, free or allocated, hold. False if one was never added.
    bool set_clean(std::uint64_t first, std::uint64_t count, bool clean);

    /// For a background zeroer: allocates the largest free block of at most this order that is not
    /// entirely clean, splitting a larger one if need be. The caller zeroes it and frees it as
    /// clean.
    std::optional<block> take_dirty(unsigned largest_order);

    std::uint64_t available() const { return added_; }  ///< pages ever added
    std::uint64_t free_pages() const { return free_; }
    /// Clean free pages, including those in blocks that are not entirely clean.
    std::uint64_t clean_free_pages() const { return clean_free_; }
    /// Also 0 when nothing is free.
    unsigned largest_free_order() const;
    /// Blocks of exactly this order.
    std::uint64_t free_blocks(unsigned order) const;

    /// For tests: walks everything and returns whether it is consistent.
    bool check() const;

  private:
    /// The bits of 64 pages. Interleaved, so that an operation on a page needs one cache line.
    struct page_bits {
        std::uint64_t added, held, clean;

        std::uint64_t free() const { return added & ~held; }
    };
    struct block_sets {
        std::uint32_t orders = 0;  ///< bit n: there is a block of order n
        std::uint32_t counts[max_order + 1] = {};
        bit_tree blocks[max_order + 1];  ///< by number: the first page's, shifted by the order
    };

    static constexpr std::uint64_t words(std::uint64_t pages) { return (pages + 63) / 64; }
    static constexpr std::uint64_t blocks(std::uint64_t pages, unsigned order) {
        return (pages + size_of(order) - 1) >> order;
    }
    static constexpr std::uint64_t bit_of(std::uint64_t page) {
        return std::uint64_t{1} << page % 64;
    }
    static constexpr std::uint64_t size_of(unsigned order) { return std::uint64_t{1} << order; }
    /// Stored for the first page of a free block; `none` for every other page.
    enum class tag : std::uint8_t { none = 0, clean = 0x80 };
    static constexpr tag tag_of(unsigned order, bool clean) {
        return static_cast<tag>((order + 1) | (clean ? static_cast<unsigned>(tag::clean) : 0u));
    }
    static bool is_clean_tag(tag t) {
        return static_cast<unsigned>(t) & static_cast<unsigned>(tag::clean);
    }
    static unsigned order_of(tag t) {
        return (static_cast<unsigned>(t) & ~static_cast<unsigned>(tag::clean)) - 1u;
    }

    bool in_range(std::uint64_t first, std::uint64_t count) const {
        return first <= pages_ && count <= pages_ - first;
    }
    /// Of the range, if it is there.
    bool in_one_word(std::uint64_t first, std::uint64_t count) const {
        return count - 1 < 64 - first % 64 && first + count <= pages_;
    }
    static constexpr std::uint64_t mask_of(std::uint64_t first, std::uint64_t count) {
        return ~std::uint64_t{0} >> (64 - count) << first % 64;
    }
    bool each_is_allocated(std::uint64_t first, std::uint64_t count) const;
    void set_each_used(std::uint64_t first, std::uint64_t count);
    template <class Visitor>
    bool each_word(std::uint64_t first, std::uint64_t count, Visitor&& visitor) const;
    bool all_clean(std::uint64_t first, std::uint64_t count) const;

    void insert(std::uint64_t first, unsigned order, bool clean);
    void remove(std::uint64_t first, unsigned order, bool clean);
    void insert_range(std::uint64_t first, std::uint64_t end, bool clean);
    void merge_range(std::uint64_t first, std::uint64_t end, bool clean);
    void merge(std::uint64_t first, unsigned order, bool clean);
    block containing(std::uint64_t page) const;
    std::uint64_t pop(bool& clean, unsigned order, unsigned wanted_order, bool wanted_clean);
    std::uint64_t split(std::uint64_t first, unsigned order, unsigned wanted_order, bool& clean,
                        bool wanted_clean);
    void hold(std::uint64_t first, std::uint64_t count, bool clean);
    bool free_page(std::uint64_t page, bool clean);
    void refile(std::uint64_t first, std::uint64_t end);
    bool check_sets(bool clean, std::uint64_t& blocks, std::uint64_t& pages) const;
    bool check_block(std::uint64_t first, unsigned order, bool clean) const;

    page_bits* bits_ = nullptr;
    tag* tags_ = nullptr;
    std::uint64_t pages_ = 0;
    std::uint64_t low_ = 0, span_ = 0;  ///< all added pages are in [low_, low_ + span_)
    std::uint64_t added_ = 0, free_ = 0, clean_free_ = 0;
    block_sets sets_[2];  ///< [1]: entirely clean
};

}  // namespace xos::memory
