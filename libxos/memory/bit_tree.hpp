// A set of numbers below a limit; finding the least one is fast.
//
//     bit_tree set;
//     set.attach(zeroed_words, 1 << 20);
//     set.insert(77);
//     set.least();  // 77
//
// One bit for each number, one bit for each of those words that is not zero, and so on up to a
// single word. Runs in any mode: no libc, no allocation.
#pragma once

#include <bit>
#include <cstdint>

namespace xos::memory {

class bit_tree {
  public:
    /// How many words of 8 bytes numbers below `limit` need: 1.02 bits each.
    static constexpr std::uint64_t words(std::uint64_t limit) {
        std::uint64_t sum = 0;
        do sum += limit = (limit + 63) / 64;
        while (limit > 1);
        return sum;
    }

    /// `memory` is zeroed, the caller's, and outlives the object; `limit` is at most 2^32.
    void attach(std::uint64_t* memory, std::uint64_t limit) {
        depth_ = 0;
        do {
            limit = (limit + 63) / 64;
            levels_[depth_++] = memory;
            memory += limit;
        } while (limit > 1);
    }

    void insert(std::uint64_t n) {
        std::uint64_t& word = levels_[0][n / 64];
        const std::uint64_t before = word;
        word = before | bit_of(n);
        if (!before && depth_ > 1) [[unlikely]]
            insert_above(n / 64);
    }
    void erase(std::uint64_t n) {
        std::uint64_t& word = levels_[0][n / 64];
        word &= ~bit_of(n);
        if (!word && depth_ > 1) [[unlikely]]
            erase_above(n / 64);
    }
    /// The set must not be empty.
    std::uint64_t least() const {
        std::uint64_t n = 0;
        for (unsigned level = depth_ - 1; level; level--) n = n * 64 + lowest(levels_[level][n]);
        return n * 64 + lowest(levels_[0][n]);
    }

    /// For tests. Checks that every level agrees with the one below it for the numbers from `first`
    /// to `last`, and calls f(n) for each that is in the set. Returns false as soon as f does.
    template <class F>
    bool check(std::uint64_t first, std::uint64_t last, F&& f) const {
        for (std::uint64_t at = first / 64; at <= last / 64; at++) {
            for (std::uint64_t rest = levels_[0][at]; rest; rest &= rest - 1) {
                if (!f(at * 64 + lowest(rest))) return false;
            }
        }
        for (unsigned level = 1; level < depth_; level++) {
            first /= 64, last /= 64;
            for (std::uint64_t n = first; n <= last; n++) {
                const bool told = levels_[level][n / 64] >> n % 64 & 1;
                if (told != (levels_[level - 1][n] != 0)) return false;
            }
        }
        return true;
    }

  private:
    static constexpr unsigned most_levels = 6;  // 64^6 > 2^32

    static std::uint64_t bit_of(std::uint64_t n) { return std::uint64_t{1} << n % 64; }
    static unsigned lowest(std::uint64_t word) {
        return static_cast<unsigned>(std::countr_zero(word));
    }
    [[gnu::noinline]] void insert_above(std::uint64_t n) {
        for (unsigned level = 1; level < depth_; level++, n /= 64) {
            std::uint64_t& word = levels_[level][n / 64];
            const std::uint64_t before = word;
            word = before | bit_of(n);
            if (before) return;
        }
    }
    [[gnu::noinline]] void erase_above(std::uint64_t n) {
        for (unsigned level = 1; level < depth_; level++, n /= 64) {
            std::uint64_t& word = levels_[level][n / 64];
            word &= ~bit_of(n);
            if (word) return;
        }
    }

    std::uint64_t* levels_[most_levels] = {};
    unsigned depth_ = 0;
};

}  // namespace xos::memory
