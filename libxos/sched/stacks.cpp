#include "libxos/sched/stacks.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <system_error>

#include "libxos/sched/overflow.hpp"
#include "libxos/sched/sanitizers.hpp"

namespace xos::sched::detail {

namespace {

/// <sys/mman.h> of Debian 12 does not have it.
constexpr int madv_guard_install = 102;

/// Mappings that guards of all regions may still make, two each.
std::atomic<long>& mappings_left() {
    static std::atomic<long> left = [] {
        long most = 65530;
        if (std::FILE* const f = std::fopen("/proc/sys/vm/max_map_count", "re")) {
            if (std::fscanf(f, "%ld", &most) != 1) most = 65530;
            std::fclose(f);
        }
        return most / 2;
    }();
    return left;
}

}  // namespace

stack_region::stack_region(std::size_t slot_bytes, std::size_t slots, std::size_t kept)
    : slot_bytes_(slot_bytes), capacity_(slots), kept_(std::min(kept, slots)) {
    void* p = MAP_FAILED;
    for (;; capacity_ /= 2) {
        p = mmap(nullptr, capacity_ * slot_bytes_, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
        if (p != MAP_FAILED || capacity_ <= 64) break;
    }
    if (p == MAP_FAILED)
        throw std::system_error(errno, std::generic_category(),
                                "no address space for the stacks of fibers; raise RLIMIT_AS or "
                                "lower max_fibers or stack_bytes");
    base_ = static_cast<char*>(p);
    warm_ = std::make_unique_for_overwrite<std::uint32_t[]>(kept_);
    // A huge page would make sixteen stacks resident at once.
    (void)madvise(base_, capacity_ * slot_bytes_, MADV_NOHUGEPAGE);
    add_region(*this);
}

stack_region::~stack_region() {
    remove_region(*this);
    munmap(base_, capacity_ * slot_bytes_);
}

std::size_t stack_region::guard_at(const void* address) const noexcept {
    const auto at = static_cast<std::size_t>(static_cast<const char*>(address) - base_);
    const std::size_t slot = at / slot_bytes_;
    return slot < slots() && at % slot_bytes_ < guard_bytes ? slot : slots();
}

const fiber_state* stack_region::find(const void* p) const noexcept {
    const auto at = static_cast<std::size_t>(static_cast<const char*>(p) - base_);
    const std::size_t slot = at / slot_bytes_;
    return slot < slots() && p == &state_of(slot) ? &state_of(slot) : nullptr;
}

void stack_region::protect(char* page) noexcept {
    if (guard() == stack_guard::marker) {
        if (madvise(page, guard_bytes, madv_guard_install) == 0) return;
        guard_.store(stack_guard::mapping, std::memory_order_relaxed);
    }
    if (guard() == stack_guard::mapping) {
        if (mappings_left().fetch_sub(2, std::memory_order_relaxed) >= 2 &&
            mprotect(page, guard_bytes, PROT_NONE) == 0)
            return;
        guard_.store(stack_guard::unguarded, std::memory_order_relaxed);
    }
}

std::size_t stack_region::carve() {
    const std::size_t slot = slots();
    if (slot == capacity_)
        throw std::system_error(std::make_error_code(std::errc::not_enough_memory),
                                "as many fibers as scheduler_options::max_fibers exist");
    // So that give() need not allocate.
    if (cold_.capacity() <= slot) cold_.reserve(2 * slot + 64);
    protect(base_of(slot));
    carved_.store(slot + 1, std::memory_order_release);
    return slot;
}

std::size_t stack_region::find_slot() {
    for (task* t = returned_.exchange(nullptr, std::memory_order_acquire); t;) {
        auto& f = static_cast<fiber_state&>(*t);
        t = t->next;
        give(f);
    }
    if (warm_count_ > 0) return warm_[--warm_count_];
    if (cold_.empty()) return carve();
    const std::size_t slot = cold_.back();
    cold_.pop_back();
    return slot;
}

fiber_state& stack_region::take() {
    const std::size_t slot = warm_count_ > 0 ? warm_[--warm_count_] : find_slot();
    char* const low = base_of(slot) + guard_bytes;
    unpoison(low, slot_bytes_ - guard_bytes);
    // Without parentheses: with them all of it is zeroed first.
    auto* const f = ::new (&state_of(slot)) fiber_state;
    f->stack_low = low;
    f->region = this;
    f->slot = static_cast<std::uint32_t>(slot);
    // Guards are as good as the last one, or better.
    f->guarded = guard() != stack_guard::unguarded;
    f->callable = reinterpret_cast<char*>(f);
    f->alive.store(true, std::memory_order_release);
    return *f;
}

void stack_region::give(fiber_state& f) noexcept {
    if (warm_count_ < kept_)
        warm_[warm_count_++] = f.slot;
    else
        give_cold(f);
}

void stack_region::give_cold(fiber_state& f) noexcept {
    const std::uint32_t slot = f.slot;
    // The slot is then zero: not alive.
    (void)madvise(f.stack_low, slot_bytes_ - guard_bytes, MADV_DONTNEED);
    cold_.push_back(slot);
}

void stack_region::give_back(fiber_state& f) noexcept {
    task* head = returned_.load(std::memory_order_relaxed);
    do f.next = head;
    while (!returned_.compare_exchange_weak(head, &f, std::memory_order_release,
                                            std::memory_order_relaxed));
}

}  // namespace xos::sched::detail
