// Stacks for fibers: one range of addresses a worker, cut into slots of one size.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>
#include <xos/sched/scheduler.hpp>

namespace xos::sched::detail {

/// A slot is a guard page, the stack, and the fiber_state on top. One mmap serves all slots:
/// guards that are mappings of their own would use up vm.max_map_count at 32,000 fibers.
///
/// The tops of neighbours are shifted against each other by multiples of a cache line. Otherwise
/// the hot lines of all fibers would compete for the same few sets of the first-level cache.
class stack_region {
  public:
    static constexpr std::size_t guard_bytes = 4096;

    /// As many slots as asked for, or fewer where the address space is limited.
    /// @throws std::system_error not_enough_memory when there is not even room for 64.
    stack_region(std::size_t slot_bytes, std::size_t slots, std::size_t kept);
    ~stack_region();
    stack_region(const stack_region&) = delete;
    stack_region& operator=(const stack_region&) = delete;

    /// A new fiber_state at the top of a free stack. By the owner.
    /// @throws std::system_error not_enough_memory when all are in use.
    fiber_state& take();
    /// By the owner.
    void give(fiber_state& f) noexcept;
    /// By any thread.
    void give_back(fiber_state& f) noexcept;

    /// How the last slot was guarded, which is the weakest.
    [[nodiscard]] stack_guard guard() const noexcept {
        return guard_.load(std::memory_order_relaxed);
    }
    /// The slot in whose guard page the address lies; slots() if in none. Safe in signal handlers.
    [[nodiscard]] std::size_t guard_at(const void* address) const noexcept;
    /// Slots that have been used at any time.
    [[nodiscard]] std::size_t slots() const noexcept {
        return carved_.load(std::memory_order_acquire);
    }
    /// Of a slot that has been used.
    [[nodiscard]] fiber_state& state_of(std::size_t slot) const noexcept {
        const std::size_t shift = slot % 16 * 64;
        return *reinterpret_cast<fiber_state*>(base_of(slot) + slot_bytes_ - shift -
                                               sizeof(fiber_state));
    }
    /// The fiber_state at that address; null if there is none.
    [[nodiscard]] const fiber_state* find(const void* p) const noexcept;

  private:
    [[nodiscard]] char* base_of(std::size_t slot) const noexcept {
        return base_ + slot * slot_bytes_;
    }
    /// When none is warm.
    [[gnu::noinline]] std::size_t find_slot();
    std::size_t carve();
    [[gnu::noinline]] void give_cold(fiber_state& f) noexcept;
    void protect(char* page) noexcept;

    char* base_ = nullptr;
    std::size_t slot_bytes_, capacity_, kept_;
    std::atomic<std::size_t> carved_{0};
    std::atomic<stack_guard> guard_{stack_guard::marker};
    // Free slots that keep their memory, and others. The last one freed is used first: it is cached.
    std::unique_ptr<std::uint32_t[]> warm_;  // room for `kept_`
    std::size_t warm_count_ = 0;
    std::vector<std::uint32_t> cold_;
    std::atomic<task*> returned_{nullptr};
};

}  // namespace xos::sched::detail
