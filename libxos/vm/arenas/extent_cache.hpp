// Caches of recently freed extents, likely to be wanted again in one piece. Each vCPU has a few, so
// that threads do not compete for the one lock for every small piece of memory.
//
// The allocator counts cached extents as allocated. A bit for each page says that the page is in a
// cache or on its way there. Setting the bit takes ownership of the page, so a double free is
// detected without the lock. A slot is one word, exchanged as a whole; any thread may empty all
// slots under the lock.
#pragma once

#include <atomic>
#include <xos/types.hpp>

namespace xos::vm {

class extent_caches {
  public:
    /// Pages of the largest cached extent: it lies within one word of the bits.
    static constexpr std::uint64_t most = 64;

    static constexpr std::uint64_t bytes_of_bits(std::uint64_t pages) {
        return (pages + 63) / 64 * 8;
    }
    static constexpr std::uint64_t bytes_of_slots(unsigned vcpus) { return vcpus * sizeof(own); }

    /// `bits` and `slots` are zeroed memory that kernel-side code can always touch.
    void attach(void* bits, void* slots, unsigned vcpus) {
        bits_ = static_cast<std::atomic<std::uint64_t>*>(bits);
        caches_ = static_cast<own*>(slots);
        vcpus_ = vcpus;
    }

    /// Whether an extent is small enough, and aligned like the buddy allocator's.
    static bool fits(std::uint64_t first, std::uint64_t count) {
        return count - 1 < most &&
               (first & (~std::uint64_t{0} >> __builtin_clzl(2 * count - 1) >> 1)) == 0;
    }

    /// Claims these pages for keep(). False: some are in a cache, or on their way.
    bool claim(std::uint64_t first, std::uint64_t count) {
        const std::uint64_t mask = mask_of(first, count);
        const std::uint64_t before = word_of(first).fetch_or(mask, std::memory_order_acq_rel);
        if (!(before & mask)) [[likely]]
            return true;
        word_of(first).fetch_and(~(mask & ~before), std::memory_order_release);
        return false;
    }
    bool is_claimed(std::uint64_t first, std::uint64_t count) const {
        const std::uint64_t end = first + count;
        if ((first | count) % 64 == 0) {
            for (auto *word = bits_ + first / 64, *last = bits_ + end / 64; word != last; word++) {
                if (word->load(std::memory_order_acquire)) return true;
            }
            return false;
        }
        while (first < end) {
            const std::uint64_t rest = 64 - first % 64,
                                here = end - first < rest ? end - first : rest;
            if (word_of(first).load(std::memory_order_acquire) & mask_of(first, here)) return true;
            first += here;
        }
        return false;
    }

    struct extent {
        std::uint64_t first = 0, count = 0;
    };

    /// Puts claimed pages into the cache of a vCPU; returns the extent that it displaces, still
    /// claimed.
    extent keep(std::uint64_t vcpu, std::uint64_t first, std::uint64_t count) {
        own& o = caches_[vcpu];
        const std::uint64_t packed = first << 32 | count;
        for (auto& slot : o.slots) {
            std::uint64_t empty = 0;
            if (slot.load(std::memory_order_relaxed) == 0 &&
                slot.compare_exchange_strong(empty, packed, std::memory_order_acq_rel))
                return {};
        }
        return unpack(o.slots[o.turn++ % slots].exchange(packed, std::memory_order_acq_rel));
    }

    /// Takes an extent of exactly this size, no longer claimed.
    extent take(std::uint64_t vcpu, std::uint64_t count) {
        for (auto& slot : caches_[vcpu].slots) {
            std::uint64_t packed = slot.load(std::memory_order_relaxed);
            if (unpack(packed).count != count) continue;
            if (!slot.compare_exchange_strong(packed, 0, std::memory_order_acq_rel)) continue;
            const extent found = unpack(packed);
            release(found.first, count);
            return found;
        }
        return {};
    }

    void release(std::uint64_t first, std::uint64_t count) {
        word_of(first).fetch_and(~mask_of(first, count), std::memory_order_acq_rel);
    }

    /// Empties all caches; calls f(extent) for each extent, no longer claimed.
    template <class F>
    void empty(unsigned vcpus, F&& f) {
        for (unsigned i = 0; i < vcpus && i < vcpus_; i++) {
            for (auto& slot : caches_[i].slots) {
                if (slot.load(std::memory_order_relaxed) == 0) continue;
                const extent e = unpack(slot.exchange(0, std::memory_order_acq_rel));
                if (e.count == 0) continue;
                release(e.first, e.count);
                f(e);
            }
        }
    }

  private:
    static constexpr unsigned slots = 7;
    /// The cache of one vCPU, in a cache line of its own.
    struct alignas(64) own {
        std::atomic<std::uint64_t> slots[extent_caches::slots];  ///< first page << 32 | pages
        std::uint64_t turn;
    };

    static extent unpack(std::uint64_t packed) { return {packed >> 32, packed & 0xffffffff}; }
    static std::uint64_t mask_of(std::uint64_t first, std::uint64_t count) {
        return ~std::uint64_t{0} >> (64 - count) << first % 64;
    }
    std::atomic<std::uint64_t>& word_of(std::uint64_t page) const { return bits_[page / 64]; }

    std::atomic<std::uint64_t>* bits_ = nullptr;
    own* caches_ = nullptr;
    unsigned vcpus_ = 0;
};

}  // namespace xos::vm
