#include "libxos/memory/buddy.hpp"

#include <algorithm>
#include <bit>

namespace xos::memory {

namespace {

/// std::popcount calls libgcc when the compiler may not assume the instruction.
std::uint64_t count_bits(std::uint64_t bits) {
    bits -= bits >> 1 & 0x5555555555555555;
    bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333);
    return ((bits + (bits >> 4)) & 0x0f0f0f0f0f0f0f0f) * 0x0101010101010101 >> 56;
}

void assign(std::uint64_t& word, std::uint64_t mask, bool value) {
    word = value ? word | mask : word & ~mask;
}

/// The order of the largest block that may begin here and ends by `end`.
unsigned fitting_order(std::uint64_t first, std::uint64_t end) {
    const int aligned = std::countr_zero(first | std::uint64_t{1} << buddy::max_order);
    const int fits = static_cast<int>(std::bit_width(end - first)) - 1;
    return static_cast<unsigned>(std::min(aligned, fits));
}

}  // namespace

/// Calls visitor(page_bits&, mask) for each 64 pages until it returns false, which is then
/// returned.
template <class Visitor>
inline bool buddy::each_word(std::uint64_t first, std::uint64_t count, Visitor&& visitor) const {
    if ((first | count) % 64 == 0) {
#pragma GCC unroll 4
        for (page_bits *at = bits_ + first / 64, *end = at + count / 64; at != end; at++) {
            if (!visitor(*at, ~std::uint64_t{0})) return false;
        }
        return true;
    }
    while (count) {
        const std::uint64_t bit = first % 64, here = std::min(64 - bit, count);
        if (!visitor(bits_[first / 64], ~std::uint64_t{0} >> (64 - here) << bit)) return false;
        first += here;
        count -= here;
    }
    return true;
}

bool buddy::all_clean(std::uint64_t first, std::uint64_t count) const {
    return each_word(first, count, [](const page_bits& word, std::uint64_t mask) {
        return (word.clean & mask) == mask;
    });
}

void buddy::attach(void* metadata, std::uint64_t pages) {
    bits_ = static_cast<page_bits*>(metadata);
    pages_ = pages;
    auto* next = reinterpret_cast<std::uint64_t*>(bits_ + words(pages));
    for (block_sets& set : sets_) {
        for (unsigned order = 0; order <= max_order; ++order) {
            set.blocks[order].attach(next, blocks(pages, order));
            next += bit_tree::words(blocks(pages, order));
        }
    }
    tags_ = reinterpret_cast<tag*>(next);
}

bool buddy::add(std::uint64_t first, std::uint64_t count, bool clean) {
    if (!in_range(first, count)) return false;
    const bool all_new = each_word(first, count, [](const page_bits& word, std::uint64_t mask) {
        return (word.added & mask) == 0;
    });
    if (!all_new) return false;
    if (count == 0) return true;

    each_word(first, count, [&](page_bits& word, std::uint64_t mask) {
        word.added |= mask;
        if (clean) word.clean |= mask;
        return true;
    });
    const std::uint64_t end = std::max(first + count, low_ + span_);
    low_ = added_ ? std::min(first, low_) : first;
    span_ = end - low_;
    added_ += count;
    free_ += count;
    if (clean) clean_free_ += count;
    merge_range(first, first + count, clean);
    return true;
}

inline void buddy::insert(std::uint64_t first, unsigned order, bool clean) {
    block_sets& set = sets_[clean];
    set.blocks[order].insert(first >> order);
    set.orders |= 1u << order;
    ++set.counts[order];
    tags_[first] = tag_of(order, clean);
}

inline void buddy::remove(std::uint64_t first, unsigned order, bool clean) {
    block_sets& set = sets_[clean];
    set.blocks[order].erase(first >> order);
    if (--set.counts[order] == 0) set.orders &= ~(1u << order);
    tags_[first] = tag::none;
}

inline void buddy::merge(std::uint64_t first, unsigned order, bool clean) {
    for (; order < max_order; ++order) {
        const std::uint64_t other = first ^ size_of(order);
        if (other - low_ >= span_) break;
        const tag found = tags_[other];
        if (order_of(found) != order) break;
        remove(other, order, is_clean_tag(found));
        clean = clean && is_clean_tag(found);
        first = std::min(first, other);
    }
    insert(first, order, clean);
}

/// Takes the lowest block and marks the wanted part as allocated.
/// @param clean  in: the set; out: whether that part is clean
inline std::uint64_t buddy::pop(bool& clean, unsigned order, unsigned wanted_order,
                                bool wanted_clean) {
    std::uint64_t first = sets_[clean].blocks[order].least() << order;
    remove(first, order, clean);
    if (order > wanted_order) first = split(first, order, wanted_order, clean, wanted_clean);
    if (wanted_order == 0) {
        page_bits& word = bits_[first / 64];
        word.held |= bit_of(first);
        --free_;
        clean_free_ -= word.clean >> first % 64 & 1;
    } else {
        hold(first, size_of(wanted_order), clean);
    }
    return first;
}

/// Splits by halves, choosing the clean or the dirty one as wanted if there is a choice.
/// @param clean  in: whether the whole block is clean; out: whether the returned part is
std::uint64_t buddy::split(std::uint64_t first, unsigned order, unsigned wanted_order, bool& clean,
                           bool wanted_clean) {
    while (order > wanted_order) {
        const std::uint64_t half = size_of(--order);
        const bool low = clean || all_clean(first, half);
        // At most one half is clean, or the whole would be.
        const bool high = clean || (!low && all_clean(first + half, half));
        const bool go_high = low != wanted_clean && high == wanted_clean;
        insert(go_high ? first : first + half, order, go_high ? low : high);
        clean = go_high ? high : low;
        if (go_high) first += half;
    }
    return first;
}

/// @param clean  whether all are known to be zero
void buddy::hold(std::uint64_t first, std::uint64_t count, bool clean) {
    std::uint64_t zeroed = clean ? count : 0;
    if (clean) {
        each_word(first, count, [](page_bits& word, std::uint64_t mask) {
            word.held |= mask;
            return true;
        });
    } else {
        each_word(first, count, [&](page_bits& word, std::uint64_t mask) {
            word.held |= mask;
            if (word.clean & mask) zeroed += count_bits(word.clean & mask);
            return true;
        });
    }
    clean_free_ -= zeroed;
    free_ -= count;
}

std::optional<std::uint64_t> buddy::allocate(unsigned order, preference want, bool& clean) {
    if (order > max_order) return std::nullopt;
    const bool wanted = want == preference::clean;
    clean = wanted;
    std::uint32_t enough = sets_[clean].orders >> order;
    if (!enough) {
        clean = !wanted;
        enough = sets_[clean].orders >> order;
        if (!enough) return std::nullopt;
    }
    const auto smallest = order + static_cast<unsigned>(std::countr_zero(enough));
    return pop(clean, smallest, order, wanted);
}

std::optional<buddy::block> buddy::take_dirty(unsigned largest_order) {
    largest_order = std::min(largest_order, max_order);
    const std::uint32_t orders = sets_[false].orders;
    if (!orders) return std::nullopt;
    const std::uint32_t enough = orders >> largest_order;
    const unsigned order = enough ? largest_order + static_cast<unsigned>(std::countr_zero(enough))
                                  : static_cast<unsigned>(std::bit_width(orders)) - 1;
    const unsigned wanted = std::min(order, largest_order);
    bool clean = false;
    return block{pop(clean, order, wanted, false), wanted};
}

bool buddy::take(std::uint64_t first, std::uint64_t count) {
    if (!in_range(first, count)) return false;
    const bool all_free = each_word(first, count, [](const page_bits& word, std::uint64_t mask) {
        return (word.free() & mask) == mask;
    });
    if (!all_free) return false;

    const std::uint64_t end = first + count;
    for (std::uint64_t page = first; page < end;) {
        const block whole = containing(page);
        const std::uint64_t whole_end = whole.first + size_of(whole.order);
        const bool clean = is_clean_tag(tags_[whole.first]);
        remove(whole.first, whole.order, clean);
        insert_range(whole.first, page, clean);
        if (end < whole_end) insert_range(end, whole_end, clean);
        page = whole_end;
    }
    hold(first, count, false);
    return true;
}

/// The fast path of free().
bool buddy::free_page(std::uint64_t page, bool clean) {
    if (page >= pages_) return false;
    page_bits& word = bits_[page / 64];
    if (!(word.held & bit_of(page))) return false;
    word.held ^= bit_of(page);
    assign(word.clean, bit_of(page), clean);
    ++free_;
    clean_free_ += clean;
    merge(page, 0, clean);
    return true;
}

bool buddy::free(std::uint64_t first, std::uint64_t count, bool clean) {
    if (count == 1) return free_page(first, clean);
    if (!is_allocated(first, count)) return false;

    if (clean) {
        clean_free_ += count;
        each_word(first, count, [](page_bits& word, std::uint64_t mask) {
            word.held &= ~mask;
            word.clean |= mask;
            return true;
        });
    } else {
        each_word(first, count, [](page_bits& word, std::uint64_t mask) {
            word.held &= ~mask;
            word.clean &= ~mask;
            return true;
        });
    }
    free_ += count;
    merge_range(first, first + count, clean);
    return true;
}

bool buddy::each_is_allocated(std::uint64_t first, std::uint64_t count) const {
    if (!in_range(first, count)) return false;
    return each_word(first, count, [](const page_bits& word, std::uint64_t mask) {
        return (word.held & mask) == mask;
    });
}

bool buddy::is_clean(std::uint64_t first, std::uint64_t count) const {
    return in_range(first, count) && all_clean(first, count);
}

void buddy::set_each_used(std::uint64_t first, std::uint64_t count) {
    if (!in_range(first, count)) return;
    each_word(first, count, [](page_bits& word, std::uint64_t mask) {
        word.clean &= ~mask;
        return true;
    });
}

std::uint64_t buddy::end_of_alike(std::uint64_t first, std::uint64_t end) const {
    const bool clean = bits_[first / 64].clean & bit_of(first);
    while (first < end) {
        const std::uint64_t word = bits_[first / 64].clean, others = clean ? ~word : word;
        if (const std::uint64_t rest = others >> first % 64) {
            first += static_cast<unsigned>(std::countr_zero(rest));
            break;
        }
        first += 64 - first % 64;
    }
    return std::min(first, end);
}

bool buddy::set_clean(std::uint64_t first, std::uint64_t count, bool clean) {
    if (!in_range(first, count)) return false;
    const bool all_added = each_word(first, count, [](const page_bits& word, std::uint64_t mask) {
        return (word.added & mask) == mask;
    });
    if (!all_added) return false;

    bool some_free = false;
    each_word(first, count, [&](page_bits& word, std::uint64_t mask) {
        if (const std::uint64_t free = word.free() & mask) {
            some_free = true;
            clean_free_ -= count_bits(word.clean & free);
            if (clean) clean_free_ += count_bits(free);
        }
        assign(word.clean, mask, clean);
        return true;
    });
    if (some_free) refile(first, first + count);
    return true;
}

unsigned buddy::largest_free_order() const {
    const std::uint32_t orders = sets_[false].orders | sets_[true].orders;
    return orders ? static_cast<unsigned>(std::bit_width(orders)) - 1 : 0;
}

std::uint64_t buddy::free_blocks(unsigned order) const {
    if (order > max_order) return 0;
    return std::uint64_t{sets_[false].counts[order]} + sets_[true].counts[order];
}

/// Files the rest of a block. Nothing of it can merge: its buddies lack the pages taken out.
void buddy::insert_range(std::uint64_t first, std::uint64_t end, bool clean) {
    while (first < end) {
        const unsigned order = fitting_order(first, end);
        insert(first, order, clean || all_clean(first, size_of(order)));
        first += size_of(order);
    }
}

void buddy::merge_range(std::uint64_t first, std::uint64_t end, bool clean) {
    while (first < end) {
        const unsigned order = fitting_order(first, end);
        merge(first, order, clean);
        first += size_of(order);
    }
}

/// The free block that a free page belongs to.
buddy::block buddy::containing(std::uint64_t page) const {
    for (unsigned order = 0;; ++order) {
        const std::uint64_t first = page & ~(size_of(order) - 1);
        if (tags_[first] != tag::none) return {first, order_of(tags_[first])};
    }
}

/// Moves the free blocks that overlap the range to the sets where they now belong.
void buddy::refile(std::uint64_t first, std::uint64_t end) {
    while (first < end) {
        const std::uint64_t bit = first % 64, free = bits_[first / 64].free() >> bit;
        if (!free) {
            first += 64 - bit;
            continue;
        }
        first += static_cast<unsigned>(std::countr_zero(free));
        if (first >= end) return;
        const auto [head, order] = containing(first);
        const bool clean = all_clean(head, size_of(order));
        if (clean != is_clean_tag(tags_[head])) {
            remove(head, order, !clean);
            insert(head, order, clean);
        }
        first = head + size_of(order);
    }
}

bool buddy::check() const {
    std::uint64_t listed_blocks = 0, listed_pages = 0;
    if (!check_sets(false, listed_blocks, listed_pages)) return false;
    if (!check_sets(true, listed_blocks, listed_pages)) return false;

    std::uint64_t added = 0, free = 0, clean_free = 0, tagged = 0;
    const bool bits_sound = each_word(low_, span_, [&](const page_bits& word, std::uint64_t mask) {
        added += count_bits(word.added & mask);
        free += count_bits(word.free() & mask);
        clean_free += count_bits(word.free() & word.clean & mask);
        return ((word.held | word.clean) & ~word.added) == 0;
    });
    for (std::uint64_t page = low_; page < low_ + span_; ++page) tagged += tags_[page] != tag::none;

    // Each such block is free and tagged, and no tag lies inside one. So equal sums rule out
    // overlaps, free pages without a block, and tags without a block.
    return bits_sound && tagged == listed_blocks && free == listed_pages && added == added_ &&
           free == free_ && clean_free == clean_free_;
}

bool buddy::check_sets(bool clean, std::uint64_t& blocks, std::uint64_t& pages) const {
    const block_sets& set = sets_[clean];
    if (set.orders >> max_order > 1) return false;
    for (unsigned order = 0; span_ && order <= max_order; ++order) {
        std::uint64_t count = 0;
        const bool sound = set.blocks[order].check(
            low_ >> order, (low_ + span_ - 1) >> order, [&](std::uint64_t number) {
                ++count;
                const std::uint64_t first = number << order;
                return first - low_ < span_ && check_block(first, order, clean);
            });
        if (!sound || count != set.counts[order] || (set.orders >> order & 1) != (count != 0))
            return false;
        blocks += count;
        pages += count << order;
    }
    return true;
}

bool buddy::check_block(std::uint64_t first, unsigned order, bool clean) const {
    const std::uint64_t count = size_of(order), other = first ^ count;
    if (first % count != 0 || !in_range(first, count)) return false;
    if (tags_[first] != tag_of(order, clean) || all_clean(first, count) != clean) return false;
    for (std::uint64_t page = first + 1; page < first + count; ++page) {
        if (tags_[page] != tag::none) return false;
    }
    if (order < max_order && other - low_ < span_ && order_of(tags_[other]) == order) return false;
    return each_word(first, count, [](const page_bits& word, std::uint64_t mask) {
        return (word.free() & mask) == mask;
    });
}

}  // namespace xos::memory
