// Views whose pages come and go by themselves.
//
// A pager says what a missing page holds; the rest, from the fault to the mapping, is done here,
// inside the guest. Memory comes from an arena.
//
//     struct from_file : xos::pager {
//         bool fill(std::size_t offset, std::span<std::byte> to) noexcept override {
//             return pread(fd, to.data(), to.size(), offset) == std::ssize(to);
//         }
//         ...
//     };
//     xos::paged_view objects({.bytes = 1 << 30, .policy = xos::paging_policy::prepage}, pool,
//     file);
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <xos/memory.hpp>
#include <xos/trap.hpp>
#include <xos/view.hpp>
#include <xos/vm.hpp>

namespace xos {

/// Says what a paged view's pages hold. Its functions are called inside, by several threads at a
/// time but only one for a unit: on a thread that faulted, in its fault handler, or on a thread
/// that evicts. They may make system calls. They must not touch missing pages of the same view, nor
/// need what the interrupted code may hold (malloc's lock), nor throw.
class pager {
  public:
    virtual ~pager() = default;
    /// Makes the contents of the view from `offset` on; `to` is one unit, zero, and a frame's host
    /// address, which system calls can write to.
    /// @return false to refuse the access, as SIGSEGV if nobody else handles it.
    virtual bool fill(std::size_t offset, std::span<std::byte> to) noexcept = 0;
    /// The unit that is there now is about to go.
    /// @param dirty  some of it was written since it was filled.
    virtual void evict(std::size_t offset, std::span<const std::byte> from,
                       bool dirty) noexcept = 0;
};

/// How much comes at a fault: one unit.
enum class paging_policy {
    demand,   ///< 4 KiB
    prepage,  ///< `window` bytes around the fault
    huge,     ///< 2 MiB, by one large leaf
};

/// One thread makes and ends it. Everything else may be called on any thread, at the same time.
class paged_view {
  public:
    struct options {
        /// At least 1; rounded up to whole units.
        std::size_t bytes = 0;
        paging_policy policy = paging_policy::demand;
        /// Bytes, for prepage: a power of two from 8 KiB to 1 MiB.
        std::size_t window = 64 << 10;
        vm::access allowed = vm::access::read_write;
    };

    /// Without a pager, pages are zero at first and forgotten when they are evicted. Arena and
    /// pager must outlive the view. Call after start(), inside (one exit) or outside.
    /// @throws std::system_error bad_argument for a window that is none, or what vm::reserve() and
    ///         on_fault() throw.
    paged_view(const options& o, memory::arena& frames, pager* contents = nullptr);
    /// Evicts everything and gives the addresses back. No thread may use the view any more. Call
    /// inside, or outside, where the calling thread enters for it and must be able to.
    ~paged_view();
    paged_view(const paged_view&) = delete;
    paged_view& operator=(const paged_view&) = delete;

    [[nodiscard]] gva begin() const noexcept { return view_.begin(); }
    [[nodiscard]] std::size_t bytes() const noexcept { return units_ * unit_; }
    [[nodiscard]] std::size_t unit() const noexcept { return unit_; }

    /// Evicts the units that overlap a range. Call inside, not in a fault handler.
    /// @return how many were there.
    /// @throws std::system_error bad_argument for what is not in the view, not_inside.
    std::size_t evict(gva begin, std::size_t bytes);
    /// How many units are there.
    [[nodiscard]] std::size_t resident() const noexcept {
        return resident_.load(std::memory_order_relaxed);
    }
    /// How many faults have brought a unit.
    [[nodiscard]] std::size_t faults() const noexcept {
        return faults_.load(std::memory_order_relaxed);
    }

  private:
    enum state : std::uint32_t { absent, changing, present };
    struct slot {
        std::atomic<std::uint32_t> now = absent;
        void* data = nullptr;
    };

    static verdict on_missing(trap_frame& frame, void* self);
    bool bring(std::size_t unit);
    bool map(std::size_t unit, void* data);

    memory::arena& frames_;
    pager* contents_;
    view view_;
    std::size_t unit_ = 0, units_ = 0;
    vm::access allowed_;
    std::unique_ptr<slot[]> slots_;
    std::atomic<std::size_t> resident_ = 0, faults_ = 0;
    trap_registration handler_;
};

}  // namespace xos

#endif  // C++20
