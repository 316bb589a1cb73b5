// More than one address space in a process.
//
// A space is the same process seen through other page tables. At first it shares everything with
// the main one. A view that it separates is its own from then on: what either side maps, unmaps or
// protects there, the other does not see. Copied on write, that is a snapshot:
//
//     xos::space snapshot;
//     snapshot.separate(heap, xos::space::frames::copied_on_write);
//     // ... the main space goes on, and its write faults on `heap` call xos::copy_on_write()
//     {
//         xos::space::inside_of look(snapshot);   // this thread reads `heap` as it was
//     }
//
// All of it happens inside the guest, without an exit. A thread that is created, and one that
// enters, starts in the main space; a fork's child goes on where its parent was.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <xos/types.hpp>
#include <xos/vm.hpp>

namespace xos {

class space {
  public:
    enum class frames {
        shared,           ///< both map the same frames, with the same access
        copied_on_write,  ///< writable pages become read-only on both sides
    };

    /// @throws std::system_error EPERM outside, ENOMEM, ENOSPC when 15 exist.
    space();
    /// Frames of the frame arena that only this space still maps go back to it. No thread may be in
    /// the space.
    ~space();
    space(const space&) = delete;
    space& operator=(const space&) = delete;

    /// Gives this space page tables of its own for the view that `address` lies in, with what the
    /// main space maps there now.
    /// @throws std::system_error EINVAL for what is no view or has leaves of 1 GiB only, EBUSY the
    ///         second time, ENOMEM, ENOSPC for more than 16 views.
    void separate(gva address, frames how);

    /// The calling thread sees memory as this space does, for the length of a scope. Scopes nest.
    class [[nodiscard]] inside_of {
      public:
        explicit inside_of(const space& s);
        ~inside_of();
        inside_of(const inside_of&) = delete;
        inside_of& operator=(const inside_of&) = delete;

      private:
        long previous_;
    };

  private:
    long number_;
};

/// For the handler of a write fault: makes the page writable in the calling thread's space, with a
/// copy of the frame if another space maps it, too.
/// @return ok, also when another thread was faster; shrinks for a page that is read-only for
/// another
///         reason; no_frames, not_mapped, not_reserved, misaligned.
vm::map_result copy_on_write(gva page) noexcept;

}  // namespace xos

#endif  // C++20
