#include "libxos/api/call_blocks.hpp"

#include <atomic>
#include <new>

#include "libxos/cell/cell.hpp"

namespace xos::api {

namespace {

using detail::queued_call;

constexpr std::size_t block_bytes = detail::calls_a_block * sizeof(queued_call);

/// Half of the two large pages that a system arena has at least besides what its vCPUs need
/// (cell/start_host.cpp); the other half may be lost to rounding.
constexpr std::uint32_t most = large_page_size / block_bytes;

/// Blocks are known by their number from 1; 0 is none.
struct block_pool {
    /// Written once, by start().
    std::uint64_t begin = 0;
    /// How many have been handed out once. The others are in no list.
    std::atomic<std::uint32_t> used = 0;
    /// The free one on top in the lower half. The upper half counts changes, so that a block which
    /// went and came back meanwhile is noticed.
    std::atomic<std::uint64_t> top = 0;
    std::atomic<std::uint32_t> below[most + 1] = {};
};
constinit block_pool pool;

std::uint64_t changed(std::uint64_t top, std::uint32_t block) {
    return ((top >> 32) + 1) << 32 | block;
}

queued_call* at(std::uint32_t block) {
    return reinterpret_cast<queued_call*>(pool.begin + (block - 1) * block_bytes);
}

queued_call* reuse() {
    std::uint64_t top = pool.top.load(std::memory_order_acquire);
    while (const auto block = static_cast<std::uint32_t>(top)) {
        const std::uint32_t next = pool.below[block].load(std::memory_order_relaxed);
        if (pool.top.compare_exchange_weak(top, changed(top, next), std::memory_order_acquire))
            return at(block);
    }
    return nullptr;
}

queued_call* use_next() {
    std::uint32_t used = pool.used.load(std::memory_order_relaxed);
    do {
        if (used == most) return nullptr;
    } while (!pool.used.compare_exchange_weak(used, used + 1, std::memory_order_relaxed));
    return at(used + 1);
}

}  // namespace

void reserve_call_blocks() {
    pool.begin = cell::the_cell.arena.allocate_user(most * block_bytes).value;
}

bool is_in_place(const queued_call* block) noexcept {
    return pool.begin && reinterpret_cast<std::uint64_t>(block) - pool.begin < most * block_bytes;
}

bool has_block_in_place() noexcept {
    return pool.begin && (static_cast<std::uint32_t>(pool.top.load(std::memory_order_relaxed)) ||
                          pool.used.load(std::memory_order_relaxed) < most);
}

queued_call* allocate_call_block() {
    if (pool.begin) {
        if (queued_call* const block = reuse()) return block;
        if (queued_call* const block = use_next()) return block;
    }
    return static_cast<queued_call*>(::operator new(block_bytes));
}

void free_call_block(queued_call* block) noexcept {
    if (!is_in_place(block)) return ::operator delete(block);
    const auto offset = reinterpret_cast<std::uint64_t>(block) - pool.begin;
    const auto number = static_cast<std::uint32_t>(offset / block_bytes + 1);
    std::uint64_t top = pool.top.load(std::memory_order_relaxed);
    do {
        pool.below[number].store(static_cast<std::uint32_t>(top), std::memory_order_relaxed);
    } while (!pool.top.compare_exchange_weak(top, changed(top, number), std::memory_order_release));
}

}  // namespace xos::api
