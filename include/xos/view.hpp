// A view that gives its addresses back.
//
// A view is a range of guest addresses that Linux knows nothing of: it has no pages until the
// application maps frames there (`xos/vm.hpp`), usually from a fault handler (`xos/trap.hpp`).
//
//     xos::view pages(1 << 20);
//     const auto handler = xos::on_fault(pages.begin(), pages.bytes(), give_page);
//     xos::enter();
//     static_cast<int*>(pages.data())[5] = 1;   // give_page() maps a frame there
//
// Declare a view before its handlers, so that the handlers are destroyed first.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <cstddef>
#include <utility>
#include <xos/vm.hpp>

namespace xos {

class view {
  public:
    /// What becomes of frames that are still mapped when the view ends.
    enum class frames {
        kept,   ///< they stay what they were: the application's
        freed,  ///< those of the frame arena go back to it; no other page may map them
    };

    /// Makes a view of no addresses.
    view() noexcept = default;
    /// Reserves as vm::reserve() does, and throws what it throws. It also throws bad_argument for
    /// frames that are to be freed in a view of leaves larger than 4 KiB. Call after `start()`,
    /// inside or outside.
    explicit view(std::size_t bytes, vm::leaf smallest = vm::leaf::page_4k,
                  frames at_the_end = frames::kept);
    /// reset()
    ~view() { reset(); }
    view(view&& other) noexcept
        : begin_(std::exchange(other.begin_, {})),
          bytes_(std::exchange(other.bytes_, 0)),
          frames_(other.frames_) {}
    view& operator=(view&& other) noexcept {
        std::swap(begin_, other.begin_);
        std::swap(bytes_, other.bytes_);
        std::swap(frames_, other.frames_);
        return *this;
    }

    [[nodiscard]] gva begin() const noexcept { return begin_; }
    /// The bytes that were asked for. vm::reserve() rounds up, and what lies behind belongs to the
    /// view, too.
    [[nodiscard]] std::size_t bytes() const noexcept { return bytes_; }
    /// The first byte, for code inside; null for a view of no addresses.
    [[nodiscard]] void* data() const noexcept { return reinterpret_cast<void*>(begin_.value); }

    /// Removes the view's mappings and gives its addresses back: an access is SIGSEGV from now on,
    /// as for any page of a view that has no frame, until a later view gets the addresses.
    ///
    /// The handlers of the range must be gone, and no thread may use the view any more. A space
    /// that has separated the view keeps what it sees there as long as it lives; only then are the
    /// addresses used again. Call inside, also in a fault handler, or outside, where the calling
    /// thread enters for a moment. Where it cannot enter (in a signal handler, in a host_call(),
    /// when no vCPU is left) the view stays as it is until the process ends.
    void reset() noexcept;

  private:
    gva begin_;
    std::size_t bytes_ = 0;
    frames frames_ = frames::kept;
};

}  // namespace xos

#endif  // C++20
