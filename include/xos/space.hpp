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
// All of it happens inside the guest, without an exit. A thread that is created or that enters
// starts in the main space. A fork's child goes on in the space where its parent was.
#pragma once

#include <xos/language.hpp>

#if __cplusplus >= 202002L

#include <xos/types.hpp>
#include <xos/vm.hpp>

namespace xos {

/// At most 15 spaces exist at the same time, and a space may separate 16 views.
class space {
  public:
    enum class frames {
        shared,           ///< both map the same frames, with the same access
        copied_on_write,  ///< writable pages become read-only on both sides
    };

    /// Call inside.
    /// @throws std::system_error not_inside, no_memory, no_room when 15 exist.
    space();
    /// Frames of the frame arena that only this space still maps go back to it. Call inside, in
    /// another space; no thread may be in this one.
    ~space();
    space(const space&) = delete;
    space& operator=(const space&) = delete;

    /// Gives this space page tables of its own for the view that `address` lies in, with what the
    /// main space maps there now. Call inside; other threads may go on in either space.
    /// @throws std::system_error bad_argument for what is no view or has leaves of 1 GiB only,
    ///         already_separated, no_memory, no_room for more than 16 views.
    void separate(gva address, frames how);

    /// The calling thread sees memory as this space does, for the length of a scope. Scopes nest.
    /// Make and end it inside, on the same thread. It loads CR3, and keeps the TLB where the
    /// processor has PCIDs (Intel SDM vol. 3A, 4.10.1).
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

/// Makes a page of a separated view writable in the calling thread's space, with a copy of the
/// frame if another space maps it, too. Call inside, usually in the handler of the write fault.
/// @param page  a multiple of 4 KiB.
/// @return ok, also when another thread was faster; shrinks for a page that is read-only for
///         another reason; no_frames, not_mapped, not_reserved, misaligned, bad_option.
vm::map_result copy_on_write(gva page) noexcept;

}  // namespace xos

#endif  // C++20
