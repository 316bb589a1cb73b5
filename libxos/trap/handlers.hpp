// The table of fault handlers, which the dispatcher reads in the guest.
//
// It is written rarely, in ordinary code and under a lock; every vCPU reads it without one. A
// sequence counter tells a reader that the table was half-written (Linux,
// Documentation/locking/seqlock.rst).
#pragma once

#include <atomic>
#include <xos/trap.hpp>

#include "libxos/memory/fork_locks.hpp"

namespace xos::trap {

struct handler_entry {
    trap_handler handler = nullptr;  ///< null: none
    void* argument = nullptr;
    std::uint32_t id = 0;
    std::uint32_t flags = 0;

    static constexpr std::uint32_t general_only = 1;
    /// The range lies in a view, where Linux's memory cannot be missing.
    static constexpr std::uint32_t on_view = 2;

    explicit operator bool() const { return handler != nullptr; }
};

struct range_entry {
    std::uint64_t begin = 0, end = 0;
    handler_entry what;
};

struct vector_entry {
    unsigned vector = 0;
    handler_entry what;
};

inline constexpr unsigned max_ranges = 64, max_vector_handlers = 64;

struct handler_table {
    unsigned range_count = 0, vector_count = 0;
    std::uint32_t vectors_present = 0;          ///< bit v: vector v has a handler
    range_entry ranges[max_ranges];             ///< sorted, disjoint
    vector_entry vectors[max_vector_handlers];  ///< newest last

    /// Returns a copy of the entry whose range holds `address`, or an empty one.
    [[gnu::always_inline]] handler_entry find_range(std::uint64_t address) const {
        for (;;) {
            const std::uint32_t before =
                memory::the_locks.handlers_sequence.load(std::memory_order_acquire);
            if (before & 1) [[unlikely]] {
                asm volatile("pause");
                continue;
            }
            // Most cells have a single range, which is the one looked for.
            handler_entry found;
            if (address - ranges[0].begin < ranges[0].end - ranges[0].begin) [[likely]] {
                found = ranges[0].what;
            } else {
                found = search(address);
            }
            std::atomic_thread_fence(std::memory_order_acquire);
            if (memory::the_locks.handlers_sequence.load(std::memory_order_relaxed) == before)
                [[likely]]
                return found;
        }
    }

    handler_entry search(std::uint64_t address) const;

    bool has_vector(unsigned v) const { return vectors_present >> v & 1; }

    /// Returns the newest handler of a vector older than `before`, or an empty entry.
    handler_entry find_vector(unsigned v, unsigned before) const {
        const auto& sequence = memory::the_locks.handlers_sequence;
        for (;;) {
            const std::uint32_t start = sequence.load(std::memory_order_acquire);
            if (start & 1) {
                asm volatile("pause");
                continue;
            }
            handler_entry found;
            for (unsigned i = 0; i < vector_count; i++) {
                const auto& e = vectors[i];
                if (e.vector == v && e.what.id < before) found = e.what;
            }
            std::atomic_thread_fence(std::memory_order_acquire);
            if (sequence.load(std::memory_order_relaxed) == start) return found;
        }
    }
};

extern handler_table the_handlers;

inline handler_entry handler_table::search(std::uint64_t address) const {
    unsigned low = 0, high = range_count;
    while (low < high) {
        const unsigned middle = (low + high) / 2;
        if (address >= ranges[middle].end)
            low = middle + 1;
        else
            high = middle;
    }
    return low < range_count && address >= ranges[low].begin ? ranges[low].what : handler_entry{};
}

/// 0, or a positive errno.
int add_range(std::uint64_t begin, std::uint64_t end, const handler_entry& what, unsigned& id);
int add_vector(unsigned vector, const handler_entry& what, unsigned& id);
void remove(unsigned id);

/// Whether any handler wants page faults of memory that Linux manages.
inline bool any_page_fault_handler() {
    return the_handlers.range_count != 0 ||
           the_handlers.has_vector(static_cast<unsigned>(exception::page_fault));
}

/// Whether in-guest handlers want to know of a refusal by Linux at this address.
inline bool wants(std::uint64_t address) {
    return the_handlers.has_vector(static_cast<unsigned>(exception::page_fault)) ||
           static_cast<bool>(the_handlers.find_range(address));
}

}  // namespace xos::trap
