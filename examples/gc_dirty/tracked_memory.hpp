// Memory that can tell which of its pages were written: one interface, three ways to know.
//
//     auto memory = gc_dirty::make_dirty_bits(pages, xos::mode::automatic);
//     memory->inside([&] {
//         memory->start_tracking();
//         memory->data()[5 * 4096] = std::byte{1};
//         gc_dirty::page_set changed(pages);
//         memory->take_changed(changed);      // page 5, which counts as unchanged from now on
//     });
//
// One thread uses it: nobody writes while take_changed() runs.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <vector>
#include <xos/mode.hpp>
#include <xos/types.hpp>

namespace gc_dirty {

/// This machine cannot do it in this way; what() says why.
struct not_available : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// A bit a page, in whole words, as xos::vm::scan() writes them.
class page_set {
  public:
    explicit page_set(std::size_t pages) : pages_(pages), words_((pages + 63) / 64) {}

    std::size_t pages() const { return pages_; }
    std::uint64_t* words() { return words_.data(); }
    void insert(std::size_t page) { words_[page / 64] |= std::uint64_t{1} << page % 64; }
    void clear() { words_.assign(words_.size(), 0); }
    void fill() {
        for (std::size_t page = 0; page < pages_; page++) insert(page);
    }
    std::size_t size() const {
        std::size_t n = 0;
        for (const std::uint64_t word : words_) n += static_cast<unsigned>(std::popcount(word));
        return n;
    }
    template <class F>
    void for_each(F&& f) const {
        for (std::size_t i = 0; i < words_.size(); i++) {
            for (std::uint64_t rest = words_[i]; rest; rest &= rest - 1)
                f(i * 64 + static_cast<unsigned>(std::countr_zero(rest)));
        }
    }

  private:
    std::size_t pages_;
    std::vector<std::uint64_t> words_;
};

class tracked_memory {
  public:
    virtual ~tracked_memory() = default;

    /// Runs `work` where the memory can be used.
    virtual void inside(const std::function<void()>& work) { work(); }

    /// Zeroed, page-aligned.
    virtual std::byte* data() = 0;
    /// From now on, writes count.
    virtual void start_tracking() = 0;
    /// Overwrites `changed` with the pages written since the last call, or since start_tracking().
    virtual void take_changed(page_set& changed) = 0;
    /// Virtual machine exits of this thread, if it is in a virtual machine.
    virtual std::optional<std::uint64_t> exits() const { return {}; }
};

// All throw not_available, or std::system_error.

/// The dirty bits of page tables of one's own: a view of libxos. Starts the cell.
std::unique_ptr<tracked_memory> make_dirty_bits(std::size_t pages, xos::mode mode);
/// Pages are read-only; the first write to one raises SIGSEGV, and the handler opens it.
std::unique_ptr<tracked_memory> make_mprotect(std::size_t pages);
/// Linux's own soft-dirty bits (Documentation/admin-guide/mm/soft-dirty.rst).
std::unique_ptr<tracked_memory> make_soft_dirty(std::size_t pages);

}  // namespace gc_dirty
